"""What README.md shows is true: its Python runs, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve

from tests.cli.command import KEYS, ROOT, STREAMER, WORD_KEYS, environment, streamer
from tests.docs.pages import help_of, unknown_options
from tests.toys import speech, toy_model

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [(kind, text) for kind, text in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)]
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.strip() and not line.startswith("#")
]


def test_it_begins_with_the_two_commands() -> None:
    assert COMMANDS[:2] == [["scripts/run"], ["scripts/test"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_exist_as_written(command: list[str]) -> None:
    if "|" in command:  # ours is the last of the pipe
        command = command[-command[::-1].index("|") :]
    program, *arguments = command
    options = [a.partition("=")[0] for a in arguments if a.startswith("-")]
    if program.startswith("scripts/"):
        assert (ROOT / program).stat().st_mode & 0o100
    elif program == "streamer":
        assert unknown_options(options, help_of("streamer", arguments[0])) == []
    elif program == "python":
        assert arguments[0] == "-m"
        words = arguments[1:3] if arguments[1] == "models" else arguments[1:2]
        assert unknown_options(options[1:], help_of(*words)) == []
    else:
        assert program in ("curl", "pip", "sudo")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    # the cards come with the models
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_event_shown_has_the_form_of_events() -> None:
    ((_, text),) = [block for block in BLOCKS if block[0] == "json"]
    event = json.loads(text)
    assert list(event) == KEYS
    assert [list(word) for word in event["words"]] == [WORD_KEYS] * 2


@contextmanager
def serving(tmp_path: Path, *models: str) -> Iterator[str]:
    """A daemon; its address without the scheme."""
    port = tmp_path / "port"
    given = [word for model in models for word in ("--model", model)]
    daemon = subprocess.Popen(
        [*STREAMER, "serve", *given, "--port", "0", "--port-file", str(port)],
        stderr=subprocess.DEVNULL,
        env=environment({"STREAMER_STATE_DIRECTORY": str(tmp_path)}),
    )
    try:
        until = time.monotonic() + 60
        while not port.exists():
            assert daemon.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"127.0.0.1:{port.read_text().strip()}"
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


def test_the_client_runs_against_a_daemon(tmp_path: Path) -> None:
    ((_, code),) = [block for block in BLOCKS if block[0] == "python" and "websockets" in block[1]]
    toy = toy_model(tmp_path / "toy.onnx")
    sf.write(tmp_path / "talk.wav", np.concatenate([speech("ABBA"), np.zeros(8000, np.int16)]), 8000)
    (tmp_path / "client.py").write_text(code, "utf-8")
    with serving(tmp_path, str(toy)) as address:
        # the daemon takes connections once its models are warm
        streamer("transcribe", "--url", f"ws://{address}", tmp_path / "talk.wav")
        client = [sys.executable, "-W", "error", "client.py", "talk.wav", f"ws://{address}/v1/stream"]
        done = subprocess.run(client, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert (done.stdout, done.stderr, done.returncode) == ("ABBA\n", "", 0)


#: Pings that must be answered soon, unless the client says otherwise.
IMPATIENT = """import functools, websockets
websockets.connect = functools.partial(websockets.connect, ping_interval=0.1, ping_timeout=0.2)
"""


def test_the_client_waits_for_a_daemon_that_reads_slowly(tmp_path: Path) -> None:
    """The server leaves pings unread for longer than an impatient client waits, as a daemon with a full buffer does."""
    ((_, code),) = [block for block in BLOCKS if block[0] == "python" and "websockets" in block[1]]
    sf.write(tmp_path / "talk.wav", np.zeros(8000 * 60, np.int16), 8000)
    (tmp_path / "client.py").write_text(IMPATIENT + code, "utf-8")

    async def slow(stream: ServerConnection) -> None:
        await stream.recv()
        stream.transport.pause_reading()
        await asyncio.sleep(1)
        stream.transport.resume_reading()
        async for message in stream:
            if isinstance(message, str) and json.loads(message)["type"] == "end":
                break
        await stream.send(json.dumps({"type": "final", "text": "ABBA"}))

    async def serve() -> tuple[bytes, bytes]:
        async with websockets_serve(slow, "127.0.0.1", 0, ping_interval=None) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            pipe = asyncio.subprocess.PIPE
            command = [sys.executable, "-W", "error", "client.py", "talk.wav", url]
            client = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=tmp_path)
            return await client.communicate()

    assert asyncio.run(serve()) == (b"ABBA\n", b"")


def test_curl_sends_readings_and_gets_forecasts(tmp_path: Path) -> None:
    """The commands as they stand there, without the program."""
    commands = [c[1:] for c in COMMANDS if c[0] == "curl" and "generate" not in c[-1] and "streams" not in c[-1]]
    assert len(commands) == 2
    with serving(tmp_path, "forecast-online") as address:
        answers = []
        for *options, url in commands:
            body = None
            if options:
                assert options[0] == "--data-binary"
                body = (ROOT / options[1].removeprefix("@")).read_bytes()
            answers.append(json.loads(_request(url.replace("127.0.0.1:8765", address), body)))
        assert answers[0] == {"taken": 1306, "refused": 0}
        assert (answers[1]["stream"], answers[1]["step"]) == ("temperature", 3600.0)


def test_curl_gets_text_from_a_generator(tmp_path: Path) -> None:
    (command,) = [command[1:] for command in COMMANDS if command[0] == "curl" and "generate" in command[-1]]
    assert command[:2] == ["-N", "-d"]
    with serving(tmp_path, "characters") as address:
        body = _request(command[3].replace("127.0.0.1:8765", address), command[2].encode())
    pieces = [json.loads(line) for line in body.splitlines()]
    assert len("".join(piece.get("text", "") for piece in pieces)) == json.loads(command[2])["length"]


@pytest.mark.long
def test_your_own_model_from_pytorch_to_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of "Your own model", in their order, on an LSTM."""
    torch = pytest.importorskip("torch")
    exporting, using = (text for kind, text in BLOCKS if kind == "python" and "websockets" not in text)
    own = [c for c in COMMANDS if c[0] == "streamer" and c[1] in ("adopt", "run")]
    commands = [c for c in own if not c[2].startswith("sherpa-onnx")]  # which nobody can fetch here
    (curl,) = [c for c in COMMANDS if c[0] == "curl" and "streams" in c[-1]]

    class Plant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = torch.nn.LSTM(3, 8, 2, batch_first=True), torch.nn.Linear(8, 2)

        def forward(self, x: Any, state: Any) -> Any:
            out, (hn, cn) = self.lstm(x, state)
            return self.head(out), hn, cn

    torch.manual_seed(0)
    model, x = Plant(), torch.randn(1, 5, 3)
    h0 = c0 = torch.zeros(2, 1, 8)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(exporting, {"torch": torch, "model": model, "x": x, "h0": h0, "c0": c0.clone()})
    rows = x[0].numpy()
    np.savetxt("rows.csv", rows, delimiter=",")
    expected = model(x, (h0, c0))[0][0].detach().numpy()
    for command in commands:
        done = streamer(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    lines = list(csv.reader(done.stdout.decode().splitlines()))[1:]
    np.testing.assert_allclose(np.array(lines, np.float64)[:, 1:], expected, rtol=1e-4, atol=1e-5)
    with serving(tmp_path, str(tmp_path / "plant.streamer.onnx")) as address:
        url = curl[-1].replace("127.0.0.1:8765", address)
        answer = json.loads(_request(url, curl[-2].encode(), {"Content-Type": "application/json"}))
        assert "outputs" in json.dumps(answer)
        code = using.replace("127.0.0.1:8765", address).replace("pump-7", "pump-8")
        found: dict[str, Any] = {"rows": rows}
        exec(code, found)
        np.testing.assert_allclose(found["outputs"]["y"], expected, rtol=1e-4, atol=1e-5)


def _request(url: str, body: bytes | None, headers: dict[str, str] | None = None) -> bytes:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        assert time.monotonic() < until
        time.sleep(0.1)
