"""Folders of public recognisers: through the package sherpa-onnx, and adopted: the same tokens at the same frames."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from export.adopt.recogniser import adopt_folder
from export.adopt.recogniser.tokens import read_tokens
from export.adopt.settings import AdoptSettings, RecogniserSettings
from streamer.contract.probe import run
from streamer.engine.model import Model
from streamer.tasks import create
from streamer.tasks.transcribe import pieces
from streamer.tasks.transcribe.task import Transcribe
from tests.export.bundles.graphs import KINDS, make
from tests.export.bundles.sherpa import FRAME, Sherpa

pytestmark = pytest.mark.long

#: sherpa-onnx counts a conformer's frames before they are subsampled.
AS_SHERPA = {"conformer": AdoptSettings(counters={"processed_lens": 32})}
WITHOUT_BATCH = {"wenet-ctc"}
#: Rows of features in a call, and how many of them are new.
WINDOWS = dict.fromkeys(("zipformer2-ctc", "zipformer2"), (45, 32))
WINDOWS |= {"zipformer": (39, 32), "lstm": (9, 4), "conformer": (39, 32), "nemo-ctc": (57, 48), "wenet-ctc": (67, 64)}


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "zipformer2-ctc-bytes"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(kind, tmp_path_factory.mktemp("recogniser") / kind)


@pytest.fixture(scope="module")
def model(kind: str, folder: Path) -> Model:
    target = folder / f"{kind}.streamer.onnx"
    assert adopt_folder(folder, target, AS_SHERPA.get(kind), max_batch=3, long_chunks=12).ok
    return Model.load(target)


def sound(seconds: float, rate: int, seed: int, pauses: bool = True) -> NDArray[np.int16]:
    """Bursts of noise through random filters and gliding tones, for 50 to 400 ms each."""
    rng, parts, left = np.random.default_rng(seed), [], int(seconds * rate)
    while left > 0:
        length = min(left, int(rng.uniform(0.05, 0.4) * rate))
        at = np.arange(length) / rate
        tone = np.sin(2 * np.pi * (rng.uniform(80, 3000) * at + rng.uniform(-2000, 2000) * at**2))
        noise = np.convolve(rng.standard_normal(length + 31), rng.standard_normal(32), "valid")
        parts.append(
            rng.choice([0, 0.02, 0.2, 0.5] if pauses else [0.2, 0.5]) * (noise / 6 * rng.random() + tone * rng.random())
        )
        left -= length
    return (np.clip(np.concatenate(parts), -1, 1) * 32000).astype(np.int16)


def rate_of(model: Model) -> int:
    assert model.manifest.input.sample_rate is not None
    return model.manifest.input.sample_rate


def chunked(model: Model, streams: list[NDArray[np.int16]]) -> NDArray[np.generic]:
    """[n, B, ...]: all whole chunks."""
    m = model.manifest
    count = len(streams[0]) // m.chunk
    chunks = np.stack([stream[: count * m.chunk].reshape(count, *m.input.chunk_shape) for stream in streams], axis=1)
    return chunks.astype(m.input.dtype)


def ours(model: Model, streams: list[NDArray[np.int16]], skip: int | None = None) -> list[list[tuple[int, str]]]:
    """(step, token) of each, as a host reads them: the best of every step, of CTC without repetitions.

    ``skip``: steps that are not counted, if not the model's latency.
    """
    m = model.manifest
    skip = m.latency if skip is None else skip
    outputs, _ = run(model, chunked(model, streams))
    said = outputs[m.outputs[0].name]  # [n, B, steps, ..., tokens]
    transducer, blank, texts = said.ndim == 5, m.options["blank"], m.options["tokens"]
    best = said.argmax(-1).reshape(*said.shape[:3]).transpose(1, 0, 2).reshape(len(streams), -1)[:, skip:]
    silent = {blank} | ({texts.index("<unk>")} if transducer and "<unk>" in texts else set())
    found = []
    for row in best:
        before = np.concatenate([[blank], row[:-1]])
        new = [t for t, token in enumerate(row) if token not in silent and (transducer or token != before[t])]
        found.append([(t, texts[row[t]]) for t in new])
    return found


def theirs(folder: Path, kind: str, pcm: NDArray[np.int16], cut: int) -> list[tuple[int, str]]:
    """``cut``: samples that sherpa is given at once."""
    stream = Sherpa(folder, kind)
    for at in range(0, len(pcm), cut):
        stream.hear(pcm[at : at + cut])
    return stream.tokens()


def told(folder: Path, tokens: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Sherpa's tokens as the adopted file spells them."""
    lines = (folder / "tokens.txt").read_text("utf-8").splitlines()
    listed = [line.rsplit(" ", 1)[0] or " " for line in lines]
    ours = read_tokens(folder / "tokens.txt", len(listed), last=True).texts
    spelt = {text.replace("\u2581", " "): ours[number] for number, text in enumerate(listed)}
    spelt |= dict(zip(listed, ours, strict=True))
    return [(frame, spelt[text]) for frame, text in tokens]


def alike(model: Model, samples: int, found: list[tuple[int, str]], want: list[tuple[int, str]]) -> bool:
    """One may be some calls behind the other at the end: sherpa waits for a row of features more than it needs, and
    what is adopted for a whole call."""
    some = min(len(found), len(want))
    last = samples // model.manifest.hop - 4 * model.manifest.steps
    return found[:some] == want[:some] and all(frame >= last for frame, _ in [*found[some:], *want[some:]])


def test_the_same_tokens_at_the_same_frames(kind: str, folder: Path, model: Model) -> None:
    """Over random sound, streams side by side, and whatever the host's cuts are."""
    streams = [sound(20, rate_of(model), seed) for seed in range(1 if kind in WITHOUT_BATCH else 3)]
    wanted = [told(folder, theirs(folder, kind, stream, 1777)) for stream in streams]
    assert sum(map(len, wanted)) > 20
    for stream, found, want in zip(streams, ours(model, streams), wanted, strict=True):
        assert alike(model, len(stream), found, want)


def test_a_long_stream(kind: str, folder: Path, model: Model) -> None:
    stream = sound(90, rate_of(model), 9)
    (found,) = ours(model, [stream])
    want = told(folder, theirs(folder, kind, stream, 16000))
    assert len(want) > 10
    assert alike(model, len(stream), found, want)


def test_the_same_utterances(kind: str, folder: Path, model: Model) -> None:
    """Sounds with pauses between them that end an utterance, by sherpa's clock, too, and are too short for its rule of
    silence alone.

    A transducer goes on as it was, in both. A model of CTC starts again in sherpa where its host says so, and goes on
    here: its endpoints are compared without.
    """
    if kind == "t-one":
        pytest.skip("sherpa-onnx does not count T-one's frames where it looks for endpoints")
    m, rate = model.manifest, rate_of(model)
    pause = np.zeros(3 * rate, np.int16)
    stream = np.concatenate([part for seed in range(6) for part in (sound(4, rate, 40 + seed, False), pause)])
    transducer = len(m.outputs[0].shape) == 3
    options = {"enable_endpoint_detection": True, "rule3_min_utterance_length": 300.0}
    segments = Sherpa(folder, kind, **options).segments(stream, rate // 10, again=transducer)
    want = [[text for _, text in told(folder, [(0, text) for text in segment])] for segment in segments]
    (tokens,) = ours(model, [stream])
    slower = m.hop / rate / FRAME  # sherpa's steps are of 40 ms, whatever the model's are
    ends = endpoints(model, stream, {"silence": 2.4 * slower, "trailing": 1.2 * slower, "length": 300.0})
    found = [[text for at, text in tokens if begin <= at < end] for begin, end in itertools.pairwise([0, *ends])]
    assert len(ends) > 4
    assert [segment for segment in found if segment] == [segment for segment in want if segment][: len(ends)]


def endpoints(model: Model, stream: NDArray[np.int16], rules: dict[str, float]) -> list[int]:
    """Where the task ``transcribe`` says utterances to end, in steps of the sound."""
    m, task = model.manifest, create(model.manifest)
    assert isinstance(task, Transcribe)
    memory, found = task.open({"partials": False, "endpoint": rules}), [0]
    outputs, _ = run(model, chunked(model, [stream]))
    for row in outputs[m.outputs[0].name]:
        task.step([memory], {m.outputs[0].name: row}, [m.steps])
        found += [memory.begun] if memory.begun != found[-1] else []
    return [step - m.latency for step in found[1:]]


def test_the_command_and_its_file(tmp_path: Path) -> None:
    """From the folder to the words of a recording, as sherpa reads it."""
    folder = make("zipformer2-ctc-bytes", tmp_path / "model")
    adopted = subprocess.run(
        [sys.executable, "-m", "streamer", "adopt", str(folder), "--endurance", "12", "--max-batch", "2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "zipformer2 with CTC: 45 rows of 80 features a call, 32 of them new" in adopted.stdout
    pcm = np.concatenate([sound(3, 16000, 7, False), np.zeros(16000, np.int16)])
    soundfile.write(tmp_path / "sound.wav", pcm, 16000)
    read = subprocess.run(
        [sys.executable, "-m", "streamer", "transcribe", "--model", str(folder / "model.streamer.onnx"),
         str(tmp_path / "sound.wav")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stream = Sherpa(folder, "zipformer2-ctc-bytes")
    stream.hear(np.concatenate([pcm, np.zeros(16000, np.int16)]))
    words = pieces.words([text for _, text in told(folder, stream.tokens())], 0)[0]
    texts = [text for _, text in told(folder, stream.tokens())]
    said = pieces.sentence([word for word in (pieces.spelt(texts[cut]) for cut in words) if word])
    assert len(words) > 5
    assert read.stdout.strip() == said


def test_early_is_as_if_there_were_silence_before(kind: str, folder: Path, model: Model, tmp_path: Path) -> None:
    if kind == "t-one":
        pytest.skip("T-one takes sound: it waits for nothing")
    settings = AS_SHERPA.get(kind, AdoptSettings()).model_copy(update={"recogniser": RecogniserSettings(early=True)})
    assert adopt_folder(folder, tmp_path / "early.onnx", settings, max_batch=2, long_chunks=12).ok
    early = Model.load(tmp_path / "early.onnx")
    assert early.manifest.latency <= model.manifest.latency
    window, shift = WINDOWS[kind]
    stream = sound(12, 16000, 4)
    before = np.zeros((window - shift + 1) * 160, np.int16)
    want = told(folder, theirs(folder, kind, np.concatenate([before, stream]), 16000))
    (found,) = ours(early, [stream], 0)
    assert alike(early, len(stream), found, want)
