"""Written lines: columns of a picture, a reader trained on them, and the command that reads a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from export.build import build
from models.layers.base import Streaming
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.classify.handwriting import Scribe
from models.zoo.classify.line_reader import LineReaderConfig
from models.zoo.classify.written_line import TOKENS, learn
from streamer.streams.written_lines import PictureError, columns, grey
from tests.cli.command import one_line, streamer
from tests.models.laws import assert_close, check_state, chunked

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:::lightning", "ignore::FutureWarning"),  # Lightning's own
]

HEIGHT = 32
FONTS = {"sans": [Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"]}
TEXTS = ["ONE TWO THREE", "FOUR FIVE", "SIX SEVEN EIGHT NINE"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    budget = Budget(steps=3, rate=1e-3, average=0.9)
    return learn(TEXTS, TEXTS, FONTS, folder, budget, LineReaderConfig(len(TOKENS)))


@pytest.fixture(scope="module")
def file(trained: Path) -> Path:
    model, info = checkpoint.load(trained)
    target = trained.with_name("written-line.onnx")
    assert build(model, info, target, max_batch=4, long_chunks=60).ok
    return target


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    ink = Scribe(FONTS, 1).line("seven", HEIGHT)  # [columns, height]
    path = tmp_path / "line.png"
    Image.fromarray(np.uint8(255 * (1 - np.pad(ink.T, 9)))).save(path)
    return path


def test_ink_is_found_whatever_the_paper(picture: Path) -> None:
    page = grey(picture)
    found = columns(page, HEIGHT)
    assert found.shape[1] == HEIGHT
    assert found.max() > 0.9
    np.testing.assert_allclose(columns(255 - page, HEIGHT), found, atol=1e-3)
    paper = np.pad(page, ((40, 7), (0, 0)), constant_values=255)  # more of it moves the quantiles of ink a little
    np.testing.assert_allclose(columns(paper, HEIGHT), found, atol=0.03)


def test_a_page_without_writing_is_told() -> None:
    with pytest.raises(PictureError, match="nothing is written"):
        columns(np.full((20, 50), 255, np.float32), HEIGHT)


def test_the_reader_keeps_the_laws(trained: Path) -> None:
    import torch

    model: Streaming = checkpoint.load(trained)[0]
    ink = torch.rand(2, 40, HEIGHT)
    check_state(model, ink)
    whole, _ = chunked(model, ink, [40])
    parts, _ = chunked(model, ink, [2, 8, 14, 16])
    assert_close(parts, whole)


def test_the_command_reads_a_picture(file: Path, picture: Path) -> None:
    done = streamer("transcribe", "--model", file, "--json", picture)
    assert done.returncode == 0, done.stderr
    assert all(set(line) <= set(map(chr, range(32, 127))) for line in done.stdout.decode().splitlines())


def test_what_is_no_picture_is_told(file: Path, picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    done = streamer("transcribe", "--model", file, broken)
    assert done.returncode == 2
    assert "not a picture" in one_line(done.stderr)
    for command, says in (
        (("--model", file, picture, "samples/digits.flac"), "apart"),
        ((picture,), "--model written-line"),
        (("--model", "digits", picture), "reads no written lines"),
        (("--url", "ws://127.0.0.1:1", picture), "takes sound"),
    ):
        done = streamer("transcribe", *command)
        assert done.returncode == 2
        assert says in one_line(done.stderr)
