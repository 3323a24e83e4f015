"""Files with several stream inputs, and with inputs that are set once for a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streamer.contract.judge import Finding
from streamer.contract.manifest import Condition, Golden, Manifest, ManifestError, StreamInput, Tensor
from streamer.contract.probe import random_signal
from streamer.engine.model import Model, ModelError
from streamer.engine.proof import judge_file
from tests.contract.several import several
from tests.toys import toy_model


def refusals(path: Path) -> list[Finding]:
    return list(judge_file(path, long_chunks=100).refusals)


def test_an_honest_one_keeps_every_law(tmp_path: Path) -> None:
    assert refusals(several(tmp_path)) == []


def test_a_condition_of_another_row_breaks_the_company_law(tmp_path: Path) -> None:
    broken = refusals(several(tmp_path, row_zero=True))
    assert broken
    assert {finding.law for finding in broken} == {"company"}


def test_conditions_are_probed_with_other_values_than_zero(tmp_path: Path) -> None:
    manifest = Model.load(several(tmp_path)).manifest
    given = random_signal(manifest, 2, 16, np.random.default_rng(0)).conditions
    assert all(array.all() for array in given.values())
    assert len(np.unique(given["speaker"], axis=0)) == 16
    assert given["language"].max() <= 3


def test_a_golden_example_with_another_condition_is_seen(tmp_path: Path) -> None:
    path = several(tmp_path)
    honest = Model.load(path).manifest
    golden = honest.golden.model_copy(update={"conditions": honest.golden.conditions | {"speaker": _other(honest)}})
    (finding,) = refusals(several(tmp_path, golden=golden))
    assert finding.check == "golden example"


def _other(manifest: Manifest) -> Tensor:
    speaker = manifest.golden.conditions["speaker"]
    return Tensor.of(-speaker.array())


def test_a_row_has_a_field_for_every_input(tmp_path: Path) -> None:
    manifest = Model.load(several(tmp_path)).manifest
    assert manifest.row_dtype == np.dtype([("x", "<f4", (2,)), ("gate", "<f4")])
    assert manifest.row_dtype.itemsize == 12
    rows = np.zeros(5, manifest.row_dtype)
    rows["gate"] = 7
    fields = manifest.fields(rows)
    assert {name: array.shape for name, array in fields.items()} == {"x": (5, 2), "gate": (5,)}
    fields["x"][:] = 1
    assert rows["x"].all()


def test_a_row_of_one_number_is_that_number(tmp_path: Path) -> None:
    manifest = Model.load(toy_model(tmp_path)).manifest
    assert manifest.row_dtype == np.dtype("<i2")
    samples = np.arange(3, dtype="<i2")
    assert manifest.fields(samples)["pcm"] is samples


def test_the_manifest_comes_back_and_a_file_of_one_input_says_nothing_of_more(tmp_path: Path) -> None:
    manifest = Model.load(several(tmp_path)).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    document = json.loads(Model.load(toy_model(tmp_path)).manifest.to_json())
    assert not {"more_inputs", "conditions"} & {*document, *document["golden"]}


def test_state_bytes_hold_the_conditions(tmp_path: Path) -> None:
    assert Model.load(several(tmp_path)).manifest.state_bytes == 3 * 4 + 3 * 4 + 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"more_inputs": [{"name": "gate", "dtype": "float32", "chunk_shape": [2]}]},
            "all inputs of a stream have one",
        ),
        ({"more_inputs": []}, "the golden example does not cover every input"),
        ({"conditions": []}, "the golden example does not cover every condition"),
        ({"more_inputs": [{"name": "speaker", "dtype": "float32", "chunk_shape": [1]}]}, "used twice: speaker"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, change: dict, said: str) -> None:
    document = json.loads(Model.load(several(tmp_path)).manifest.to_json()) | change
    with pytest.raises(ManifestError, match=said):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("limits", [(1, 3), (-(2**40), 2**70)])
def test_limits_of_a_condition_hold_zero_and_fit_its_type(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must hold 0"):
        Condition(name="language", dtype="int64", shape=(1,), limits=limits)


def test_graph_and_manifest_must_agree_on_them(tmp_path: Path) -> None:
    path = several(
        tmp_path, conditions=(Condition(name="speaker", dtype="float64", shape=(3,)),), golden=_without(tmp_path)
    )
    with pytest.raises(ModelError, match="'speaker' is tensor\\(float\\) in the graph, float64") as caught:
        Model.load(path)
    assert "input 'language' of the graph is not in the manifest" in str(caught.value)


def _without(folder: Path) -> Golden:
    golden = Model.load(several(folder)).manifest.golden
    return golden.model_copy(update={"conditions": {"speaker": golden.conditions["speaker"]}})


def test_token_ids_of_one_channel_have_limits() -> None:
    assert StreamInput(name="ids", dtype="int64", chunk_shape=(4,), limits=((0, 30),)).limits == ((0, 30),)
