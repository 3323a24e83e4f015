"""Every shipped file, end to end through the WebSocket: split, in company, and with the daemon gone in the middle."""

import asyncio
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from streamer.client import StreamClient
from streamer.engine.model import Model
from tests.daemon.in_process import run_in_process
from tests.daemon.running import ROOT, Proxy, Running
from tests.daemon.talk import pieces, transcribe
from tests.engine.support import audio_models, levels

pytestmark = pytest.mark.long

SECONDS = 6


def plain(events: list[dict]) -> list[str]:
    """What does not depend on the size of the batch, not even in the last bit; without partials, see :func:`firm`."""
    words = [[{k: v for k, v in w.items() if k != "confidence"} for w in e.get("words", ())] for e in events]
    firm = [{**e, "words": w, "pcm": ""} for e, w in zip(events, words, strict=True) if e["type"] != "partial"]
    return [json.dumps(event, sort_keys=True) for event in firm]


@pytest.mark.parametrize("path", audio_models(), ids=lambda path: path.stem)
def test_split_company_and_restart_do_not_show(path: Path, tmp_path: Path) -> None:
    name = Model.load(path).manifest.name
    sound, rate = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")
    voices = [sound[at * rate : (at + SECONDS) * rate].tobytes() for at in (0, 5, 10)]

    async def talk(running: Running) -> tuple[list[list[dict]], Running]:
        async with Proxy.to(running.port) as proxy:
            company = [
                asyncio.create_task(transcribe(proxy.url, pieces(pcm, n, 9000), rate, model=name))
                for n, pcm in enumerate(voices[1:])
            ]
            async with StreamClient(proxy.url, sample_rate=rate, model=name) as stream:
                parts = pieces(voices[0], 7, 9000)
                for part in parts[: len(parts) // 2]:
                    await stream.send(part)
                await stream.safe(1)
                assert await asyncio.to_thread(running.stop, signal.SIGTERM) == 0
                running = await asyncio.to_thread(Running, tmp_path, path, checkpoint_seconds=0.1)
                proxy.target = running.port
                for part in parts[len(parts) // 2 :]:
                    await stream.send(part)
                await stream.end()
                mine = [event async for event in stream]
                assert stream.reconnects > 0
            return [mine, *await asyncio.gather(*company)], running

    got, last = asyncio.run(talk(Running(tmp_path, path, checkpoint_seconds=0.1)))
    last.stop(signal.SIGKILL)
    wanted = [run_in_process(path, pcm, rate) for pcm in voices]
    assert [plain(events) for events in got] == [plain(events) for events in wanted]
    for events, whole in zip(got, wanted, strict=True):
        assert np.abs(levels(events) - levels(whole)).max(initial=0) <= 1
    assert min(len(plain(events)) for events in got) > 1
