"""The judge believes the honest and catches every kind of law-breaker; the commands say what it found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

from streamer.cli import app
from streamer.contract.manifest import Input
from streamer.contract.probe import deviation, probe
from streamer.engine.proof import judge_file
from tests.contract.lawbreakers import BREAKERS, honest, write
from tests.toys import toy_model


def told(path: Path) -> list[str]:
    return [f"{finding.law}: {finding.check}" for finding in judge_file(path, long_chunks=300).refusals]


def test_the_honest_model_keeps_every_law(tmp_path: Path) -> None:
    verdict = judge_file(honest(tmp_path / "honest.onnx"), long_chunks=300)
    assert verdict.refusals == ()
    assert {finding.law for finding in verdict.findings} == {"contract", "chunk", "company", "sleep", "endurance"}
    company = [finding for finding in verdict.findings if finding.law == "company"]
    assert all(finding.measured == 0 and "bit for bit" in finding.detail for finding in company)


def test_a_recurrent_network_keeps_every_law(tmp_path: Path) -> None:
    """Its states sort otherwise than the graph's outputs: pairing by position would swap c and h."""
    assert told(toy_model(tmp_path, max_batch=16)) == []


def test_a_slow_average_does_not_grow_without_end(tmp_path: Path) -> None:
    """It is still rising when the endurance run is over, and from 2^24 it returns by a thousandth a chunk."""

    def slow(parts: dict) -> None:
        parts["constants"] |= {"keep": np.array(0.999, np.float32), "add": np.array(1.0, np.float32)}
        parts["nodes"] = [node for node in parts["nodes"] if not {"counted", "count.next"} & set(node.output)]
        parts["nodes"] += [helper.make_node("Mul", ["count", "keep"], ["kept"])]
        parts["nodes"] += [helper.make_node("Add", ["kept", "add"], ["count.next"])]

    assert told(write(tmp_path / "slow.onnx", slow)) == []


@pytest.mark.parametrize("breaker", BREAKERS)
def test_a_law_breaker_is_caught(tmp_path: Path, breaker: str) -> None:
    change, expected = BREAKERS[breaker]
    caught = told(write(tmp_path / "broken.onnx", change))
    assert any(said.startswith(expected) for said in caught), caught


@pytest.mark.parametrize("breaker", ["batch mean", "row 0 for everybody", "random", "counts for ever"])
def test_only_the_law_that_is_broken_is_named(tmp_path: Path, breaker: str) -> None:
    change, expected = BREAKERS[breaker]
    laws = {said.partition(":")[0] for said in told(write(tmp_path / "broken.onnx", change))}
    # noise in the output is also a stream that is never twice the same, alone or in company
    assert laws - {"company"} <= {expected.partition(":")[0]}


def test_outputs_in_any_order_are_bound_by_name(tmp_path: Path) -> None:
    def reverse(parts: dict) -> None:
        parts["outputs"].reverse()
        parts["inputs"].reverse()

    assert told(write(tmp_path / "reversed.onnx", reverse)) == []


def test_the_same_seed_gives_the_same_verdict(tmp_path: Path) -> None:
    path = write(tmp_path / "broken.onnx", BREAKERS["batch mean"][0])
    first, second = judge_file(path, seed=7, long_chunks=20), judge_file(path, seed=7, long_chunks=20)
    assert first == second
    assert first.seed == 7
    assert judge_file(path, seed=8, long_chunks=20) != first


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x08\x07" + bytes(100)])
def test_a_file_that_is_no_model_is_one_finding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    (finding,) = judge_file(path).findings
    assert not finding.ok
    assert str(path) in finding.detail


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = honest(tmp_path / "honest.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    assert told(path) == ["contract: file and manifest agree"]


def test_deviation() -> None:
    a = np.array([[1.0, -4.0], [2.0, 1.0]])
    assert deviation(a, a) == 0
    assert deviation(a + np.array([[0, 0], [0, 0.02]]), a) == pytest.approx(0.01)
    assert deviation(a[:1], a) == np.inf
    assert deviation(np.where(a > 1.5, np.nan, a), a) == np.inf
    assert deviation(np.full(3, -np.inf), np.full(3, -np.inf)) == 0


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32"])
def test_probe_gives_what_the_contract_asks_for(dtype: str) -> None:
    spec = Input.model_validate({"name": "x", "dtype": dtype, "chunk_shape": (20, 3), "step_seconds": 0.0})
    signal = probe(spec, 5, 4, np.random.default_rng(0))
    assert signal.shape == (5, 4, 20, 3)
    assert signal.dtype == dtype
    np.testing.assert_array_equal(signal, probe(spec, 5, 4, np.random.default_rng(0)))
    assert len(np.unique(signal)) > 1


# -- the commands ------------------------------------------------------------------------------------------------------


def test_check_prints_a_table_and_the_exit_code(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["check", str(honest(tmp_path / "honest.onnx")), "--chunks", "30"])
    assert good.exit_code == 0
    assert "honest.onnx: keeps its laws" in good.stdout
    bad = write(tmp_path / "broken.onnx", BREAKERS["state names swapped"][0])
    refused = CliRunner().invoke(app, ["check", str(bad), "--chunks", "30"])
    assert refused.exit_code == 1
    assert "FAILS" in refused.stdout
    assert "broken.onnx: refused, 1 of" in refused.stdout


def test_check_as_json(tmp_path: Path) -> None:
    bad = write(tmp_path / "broken.onnx", BREAKERS["batch mean"][0])
    result = CliRunner().invoke(app, ["check", "--json", "--seed", "3", str(bad), "--chunks", "30"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["ok"], document["seed"], document["file"]) == (False, 3, str(bad))
    assert {finding["law"] for finding in document["findings"] if not finding["ok"]} == {"company"}


@pytest.mark.parametrize("name", ["no-such-model", "foreign.onnx"])
def test_check_of_what_is_no_model_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "foreign.onnx").write_bytes(b"ID3 this is music")
    target = str(tmp_path / name) if name.endswith("onnx") else name
    result = CliRunner().invoke(app, ["check", target])
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
    assert name in result.stderr
    as_json = CliRunner().invoke(app, ["check", "--json", target])
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["ok"] is False


def test_models_lists_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [honest(tmp_path / "counting.onnx"), tmp_path / "damaged.onnx"]
    paths[1].write_bytes(b"nonsense")
    monkeypatch.setattr("streamer.engine.catalogue.find_models", lambda: paths)
    result = CliRunner().invoke(app, ["models", "--json"])
    assert result.exit_code == 0
    good, bad = json.loads(result.stdout)
    assert (good["name"], good["task"], good["licence"]) == ("counting", "transcribe", "Apache-2.0")
    assert (good["bytes"], good["state_bytes"]) == (paths[0].stat().st_size, 12)
    assert "error" in bad
    table = CliRunner().invoke(app, ["models"])
    assert table.exit_code == 0
    assert "counting 1: transcribe, " in table.stdout
    assert "  licence: Apache-2.0\n" in table.stdout
    assert "damaged: broken: " in table.stdout
