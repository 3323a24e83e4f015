"""Kaldi's and NeMo's features in a graph, chunk by chunk: against the package kaldi-native-fbank."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from export.adopt.ops import Ops
from export.adopt.read import session
from export.adopt.recogniser.frontend import KINDS, Frontend

knf = pytest.importorskip("kaldi_native_fbank")

COUNT = 7
#: Between two log energies, in nats.
TOLERANCE = 1e-3


def reference(frontend: Frontend, pcm: NDArray[np.int16], *, finished: bool = False) -> NDArray[np.float32]:
    """[N] -> [frames, bins]. ``finished``: the frames too that lack samples at the end."""
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.snip_edges = 0, False
    options.frame_opts.samp_freq = frontend.rate
    options.frame_opts.window_type = frontend.window
    options.frame_opts.remove_dc_offset = frontend.centred
    options.mel_opts.num_bins = frontend.bins
    options.mel_opts.low_freq, options.mel_opts.high_freq = frontend.low, frontend.high
    options.mel_opts.is_librosa = frontend.mel == "slaney"
    features = knf.OnlineFbank(options)
    features.accept_waveform(frontend.rate, (pcm * np.float32(frontend.scale)).tolist())
    if finished:
        features.input_finished()
    return np.stack([features.get_frame(n) for n in range(features.num_frames_ready)])


def in_graph(frontend: Frontend, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """[n * COUNT shifts] -> rows of all calls but the first, which is no frame."""
    samples, ops = COUNT * frontend.shift, Ops()

    def value(name: str, kind: ir.DataType, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(["batch", *shape]), type=ir.TensorType(kind))

    inputs = [
        value("pcm", ir.DataType.INT16, samples),
        value("before", ir.DataType.INT16, frontend.carry),
        value("begins", ir.DataType.BOOL, 1),
    ]
    rows, behind = frontend.rows(ops, *inputs, COUNT)
    for output, kind in ((rows, ir.DataType.FLOAT), (behind, ir.DataType.INT16)):
        output.type = ir.TensorType(kind)
    graph = ir.Graph(
        inputs, [rows, behind], nodes=ops.nodes, initializers=ops.initial, opset_imports={"": 13}, name="features"
    )
    runner = session(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString())
    found: list[Any] = []
    before = np.full((1, frontend.carry), 12345, np.int16)  # what a stream left that had the place before
    for call, chunk in enumerate(pcm.reshape(-1, 1, samples)):
        rows, before = runner.run(None, {"pcm": chunk, "before": before, "begins": np.array([[call == 0]])})
        found.append(rows[0])
    return np.concatenate(found)[1:]


def sounds() -> dict[str, NDArray[np.int16]]:
    rng = np.random.default_rng(3)
    at = np.arange(COUNT * 160 * 12)
    speechlike = 9000 * np.sin(0.03 * at + 8 * np.sin(at / 900)) * (np.sin(at / 2500) > 0) + 40 * rng.standard_normal(
        len(at)
    )
    return {
        "noise": rng.integers(-20000, 20000, len(at)),
        "tone, with pauses": speechlike,
        "offset": 6000 + 30 * rng.standard_normal(len(at)),
        "silence": np.zeros(len(at)),
        "full scale": 32767 * np.sign(np.sin(at / 5)),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sounds())
def test_features_are_kaldi_native_fbanks(kind: str, name: str) -> None:
    frontend, pcm = KINDS[kind], sounds()[name].astype(np.int16)
    want = reference(frontend, pcm)
    assert len(want) > COUNT * 10
    np.testing.assert_allclose(frontend.features(pcm), want, atol=TOLERANCE)
    np.testing.assert_allclose(in_graph(frontend, pcm)[: len(want)], want, atol=TOLERANCE)


def test_eight_kilohertz_and_other_bins() -> None:
    frontend = Frontend(rate=8000, bins=64)
    pcm = sounds()["noise"].astype(np.int16)[: 8 * COUNT * frontend.shift]
    want = reference(frontend, pcm)
    np.testing.assert_allclose(in_graph(frontend, pcm)[: len(want)], want, atol=TOLERANCE)


def test_silence_behind_the_sound_stands_for_its_end() -> None:
    """Kaldi mirrors the last samples; here they are followed by silence: only the frames over the end differ."""
    frontend = KINDS["kaldi"]
    pcm = sounds()["noise"].astype(np.int16)
    padded = np.concatenate([pcm, np.zeros(COUNT * frontend.shift, np.int16)])
    whole, ours = reference(frontend, pcm, finished=True), in_graph(frontend, padded)
    inside = len(reference(frontend, pcm))
    assert len(whole) - inside == 1
    np.testing.assert_allclose(ours[:inside], whole[:inside], atol=TOLERANCE)
    assert np.abs(ours[inside] - whole[inside]).max() < 10
