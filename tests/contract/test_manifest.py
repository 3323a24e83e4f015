"""The contract: what it keeps through JSON, and everything that it refuses, with a message that names the fault."""

from __future__ import annotations

import base64
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.contract.manifest import KEY, MAX_UNPACKED_BYTES, Manifest, ManifestError, Packed, Tensor
from streamer.engine.model import Model
from tests.toys import toy_model


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Model.load(toy_model(tmp_path_factory.mktemp("toy"))).manifest


@pytest.fixture
def document(manifest: Manifest) -> dict[str, Any]:
    return json.loads(manifest.to_json())


def refused(document: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(json.dumps(document))
    return str(caught.value)


def test_round_trip_keeps_everything(manifest: Manifest) -> None:
    again = Manifest.from_metadata({KEY: manifest.to_json(), "other": "x"})
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_derived_numbers(manifest: Manifest) -> None:
    assert (manifest.chunk, manifest.steps, manifest.hop) == (320, 4, 80)
    assert manifest.chunk_seconds == pytest.approx(0.04)
    assert manifest.state_bytes == 80 * 2 + 2 * 8 * 4


@pytest.mark.parametrize(
    "key", sorted(set(Manifest.model_fields) - {"schema_", "description", "more_inputs", "conditions"})
)
def test_a_missing_key_is_named(document: dict[str, Any], key: str) -> None:
    del document[key]
    assert f"  {key}: Field required" in refused(document)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_foreign_schema_is_refused(document: dict[str, Any], schema: Any) -> None:
    document["schema"] = schema
    assert f"has schema {schema!r}, this build reads schema 1" in refused(document)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "\x00\xff"])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ManifestError, match="is not JSON"):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_json_that_is_no_object(text: str) -> None:
    with pytest.raises(ManifestError, match="has schema None"):
        Manifest.from_json(text)


def test_a_file_of_somebody_else() -> None:
    with pytest.raises(ManifestError, match="it was not exported for streamer"):
        Manifest.from_metadata({"author": "somebody"})


@pytest.mark.parametrize("part", [(), ("input",), ("states", 0), ("outputs", 0), ("golden",), ("provenance",)])
def test_unknown_keys_are_named(document: dict[str, Any], part: tuple[Any, ...]) -> None:
    target = document
    for step in part:
        target = target[step]
    target["surprise"] = 1
    assert ".".join([*map(str, part), "surprise"]) in refused(document)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["states"][1].update({"in": d["states"][0]["in"]}), "input names used twice: overlap"),
        (lambda d: d["states"][1].update({"in": "pcm"}), "input names used twice: pcm"),
        (lambda d: d["states"][1].update(out="log_probs"), "output names used twice: log_probs"),
        (lambda d: d["states"][0].update(out="lstm.0.c.next"), "output names used twice: lstm.0.c.next"),
        (lambda d: d["input"].update(chunk_shape=[321]), "shared out evenly"),
        (lambda d: d["input"].update(chunk_shape=[]), "chunk_shape needs at least the time axis"),
        (lambda d: d["input"].update(step_seconds=1.0), "either sample_rate or step_seconds"),
        (lambda d: d["input"].pop("sample_rate"), "either sample_rate or step_seconds"),
        (lambda d: d["input"].update(lowest_rate=1_000_000), "at most the sample_rate"),
        (lambda d: d["input"].update(lowest_rate=0), "lowest_rate"),
        (lambda d: d["input"].update(sample_rate=0), "input.sample_rate"),
        (lambda d: d["input"].update(sample_rate="8000"), "input.sample_rate"),
        (lambda d: d["input"].update(dtype="complex64"), "input.dtype"),
        (lambda d: d["golden"].update(outputs={}), "does not cover every output"),
        (lambda d: d.update(outputs=[]), "outputs"),
        (lambda d: d.update(max_batch=0), "max_batch"),
        (lambda d: d.update(flush=-1), "flush"),
        (lambda d: d.update(name="../etc/passwd"), "name"),
        (lambda d: d.update(task="divine"), "task"),
        (lambda d: d["states"][0].update(shape=[0]), "states.0.shape"),
        (lambda d: d["golden"]["chunks"][0]["data"].update(size=MAX_UNPACKED_BYTES + 1), "golden.chunks.0.data.size"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(document: dict[str, Any], change: Any, said: str) -> None:
    change(document)
    assert said in refused(document)


def test_every_problem_is_told_at_once(document: dict[str, Any]) -> None:
    document["max_batch"], document["flush"] = 0, -1
    message = refused(document)
    assert "max_batch" in message
    assert "flush" in message


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_packed_bytes_come_back(data: bytes) -> None:
    assert Packed.pack(data).unpack() == data


@settings(deadline=None)
@given(st.binary(min_size=200, max_size=400), st.data())
def test_damaged_bytes_are_refused_or_harmless(data: bytes, draw: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(Packed.pack(data).xz))
    raw[draw.draw(st.integers(0, len(raw) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        unpacked = Packed(xz=base64.b64encode(raw).decode(), size=len(data)).unpack()
    except ManifestError:
        return
    assert unpacked == data  # the byte changed was padding of the container


@pytest.mark.parametrize("xz", ["", "####", "AAAA", base64.b64encode(lzma.compress(b"hello")[:-8]).decode()[:20]])
def test_what_was_never_packed(xz: str) -> None:
    with pytest.raises(ManifestError):
        Packed(xz=xz, size=5).unpack()


@pytest.mark.parametrize("declared", [0, 99, 101])
def test_a_wrong_size_is_refused(declared: int) -> None:
    with pytest.raises(ManifestError, match="are declared"):
        Packed(xz=Packed.pack(bytes(100)).xz, size=declared).unpack()


def test_a_bomb_is_not_unpacked() -> None:
    bomb = Packed(xz=base64.b64encode(lzma.compress(bytes(2**27), preset=1)).decode(), size=1000)
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ManifestError, match="1001 bytes or more where 1000"):
        bomb.unpack()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22  # a 128 MiB bomb; what is held is the compressed text and a window


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_tensors_come_back(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for given_array in (array, array[:, ::-1, ::2], array.astype(np.dtype(dtype).newbyteorder(">"))):
        again = Tensor.of(given_array).array()
        assert again.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(again, given_array)


def test_a_tensor_of_another_shape_is_refused() -> None:
    tensor = Tensor.of(np.zeros((2, 3), np.float32)).model_copy(update={"shape": (2, 4)})
    with pytest.raises(ManifestError, match="declared shape"):
        tensor.array()


def test_every_shipped_manifest_reads_itself() -> None:
    from streamer.engine.catalogue import find_models

    for path in find_models():
        manifest = Model.load(Path(path)).manifest
        assert Manifest.from_json(manifest.to_json()) == manifest
