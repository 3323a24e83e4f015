"""Why a batch stays 1: an operator that is fixed, rows that see each other, and what is neither but rounding."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.adopt.build import leak, state_bound, together_only
from export.adopt.report import Report
from streamer.contract.judge import Finding, Verdict
from streamer.contract.manifest import Provenance
from streamer.engine.model import Model
from streamer.engine.proof import judge_file
from tests.export.adopt.support import adoption, written

PLAIN = """(float[{b}, 1, 4] x, float[{b}, 1, 4] h) => (float[{b}, 1, 4] y, float[{b}, 1, 4] hn) {{
    s = Add(x, h)  hn = Tanh(s)  {more}
}}"""


def test_an_operator_that_is_fixed_is_named(tmp_path: Path) -> None:
    """A sum that is written out for one row, which nobody can free."""
    more = "ab = Constant<value = int64[2] {4, 1}>() flat = Reshape(hn, ab) "
    more += "one = Constant<value = float[1, 4] {1, 2, 3, 4}>() dot = MatMul(one, flat) y = Add(hn, dot)"
    adopted = adoption(written(tmp_path / "m.onnx", PLAIN.format(b=1, more=more)))
    assert adopted.manifest.max_batch == 1
    assert adopted.said("a batch that can't be freed, so max_batch = 1:")


def test_rows_that_see_each_other_and_how_much(tmp_path: Path) -> None:
    more = "m = ReduceMean<axes = [0], keepdims = 1>(hn)  y = Add(hn, m)"
    adopted = adoption(written(tmp_path / "m.onnx", PLAIN.format(b="b", more=more)))
    assert adopted.manifest.max_batch == 1
    assert adopted.said(
        "max_batch = 1: rows influence each other: y of two streams together is 0.", "from what each gives alone"
    )


def test_a_rounding_is_stated_and_batches_stay(tmp_path: Path) -> None:
    """What depends on how many rows there are, and on nothing in them, stands in for kernels that round otherwise."""
    more = "n = Shape(x) i = Constant<value = int64 {0}>() b = Gather(n, i) f = Cast<to = 1>(b) "
    more += "e = Constant<value = float {0.00002}>() k = Mul(f, e) m = Mul(hn, k) y = Add(hn, m)"
    source = written(tmp_path / "m.onnx", PLAIN.format(b="b", more=more))
    adopted = adoption(source)
    assert adopted.said("rows in a batch are", "The file states", "batches up to 3")
    manifest = adopted.manifest
    assert manifest.max_batch == 3
    assert 1e-5 < (manifest.provenance.company or 0) <= 1e-3
    assert Model.load(adopted.path).manifest == manifest
    assert judge_file(adopted.path, long_chunks=40).ok
    wild = manifest.provenance.model_dump() | {"company": 0.1}
    with pytest.raises(ValueError, match="company"):
        Provenance.model_validate(wild)


def test_poison_is_no_rounding(tmp_path: Path) -> None:
    finding = Finding(
        "company", "beside NaN", False, float("inf"), 1e-5, "rows 0, 1, 2 of 3; differs, worst in y at row 0"
    )
    verdict = Verdict(tmp_path, 0, (finding,))
    assert together_only(verdict)
    assert not state_bound(tmp_path / "none.onnx", verdict, Report())
    assert leak(verdict) == "rows influence each other, not finite beside NaN (differs, worst in y at row 0)"
