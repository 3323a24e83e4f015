"""A file whose weights are in a second file beside it, and what is said where that one is missing or cut short."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from export.adopt.build import adopt
from export.adopt.report import AdoptionError
from tests.export.adopt.support import adoption, written

WEIGHTS = """(float[b, 1, 4] x, float[b, 1, 4] h) => (float[b, 1, 4] y, float[b, 1, 4] hn)
    <float[4] w = {1, 2, 3, 4}> {
    k = Constant<value = float[4] {4, 3, 2, 1}>()  a = Mul(x, w)  s = Add(a, h)  hn = Tanh(s)  y = Mul(hn, k)
}"""


def weights_beside(path: Path) -> Path:
    """A file whose weights, the constant in the graph included, are in a second file beside it."""
    proto = onnx.load(written(path, WEIGHTS))
    for tensor in (*proto.graph.initializer, proto.graph.node[0].attribute[0].t):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0, convert_attribute=True)
    return path


def test_weights_that_are_missing_or_cut_short(tmp_path: Path) -> None:
    source, beside = weights_beside(tmp_path / "m.onnx"), tmp_path / "m.data"
    assert adoption(source).pairs == {"h": "hn"}
    whole = beside.read_bytes()
    beside.write_bytes(whole[:-1])
    said = f"the weights of {source} are in m.data, which is too short: it has {len(whole) - 1} bytes"
    with pytest.raises(AdoptionError, match=f"^{re.escape(said)}, and the model needs {len(whole)}"):
        adopt(source, tmp_path / "out.onnx")
    beside.unlink()
    said = f"the weights of {source} are in m.data, which is not beside it: copy it into"
    with pytest.raises(AdoptionError, match=f"^{re.escape(said)}"):
        adopt(source, tmp_path / "out.onnx")


def test_weights_that_point_elsewhere(tmp_path: Path) -> None:
    proto = onnx.load(weights_beside(tmp_path / "m.onnx"), load_external_data=False)
    (tmp_path / "in").mkdir()
    proto.graph.initializer[0].external_data[0].value = "../m.data"
    (tmp_path / "m.data").rename(tmp_path / "in" / "m.data")
    (tmp_path / "m.data").write_bytes((tmp_path / "in" / "m.data").read_bytes())
    (tmp_path / "in" / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(AdoptionError, match=r"^the weights of .* can't be read from the files beside it"):
        adopt(tmp_path / "in" / "m.onnx", tmp_path / "out.onnx")
