"""Every parser against damaged input: 20 minutes of hypothesis at share 1, in a separate process.

Inputs are damaged samples (bytes changed, cut, repeated, spliced with another sample, numbers made huge) and random
bytes. A parser must read its input or raise its own error. Another exception is a crash, and is reported; so is a
parser that takes longer than :data:`SLOW`, or whose process grows by more than :data:`GROWTH`.

HTTP heads and WebSocket frames are also sent to a real daemon, whose process is observed.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.parsers import Parser, parsers

SECONDS = 20 * 60
#: The most seconds of parsing a few kilobytes on a busy machine; and those after which the process is killed.
SLOW, HANGS = 5.0, 60.0
#: The most bytes by which a parser's process may grow, with its libraries and hypothesis's data.
GROWTH = 256 * 2**20
#: Share of the time for attacks on a daemon.
WIRE = 0.2
NUMBERS = (
    b"0",
    b"-1",
    b"1e308",
    b"1e999",
    b"-0",
    b"99999999999999999999",
    b"NaN",
    b"null",
    b"\xff\xff\xff\xff\x7f",
    b"[" * 5000,
)


def damaged(samples: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Samples, samples changed at some places, and random bytes."""
    places, pieces = st.integers(0, 4096), st.binary(max_size=8) | st.sampled_from(NUMBERS)
    change = st.tuples(st.sampled_from(("put", "cut", "twice", "over", "splice")), places, places, pieces)

    def damage(sample: bytes, other: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
        for what, first, second, piece in changes:
            at = first % (len(sample) + 1)
            end = at + second % (len(sample) - at + 1)
            if what == "put":
                sample = sample[:at] + piece + sample[at:]
            elif what == "cut":
                sample = sample[:at] + sample[end:]
            elif what == "twice":
                sample = sample[:end] + sample[at:end] * 2 + sample[end:]
            elif what == "over":
                sample = sample[:at] + piece + sample[at + len(piece) :]
            else:
                sample = sample[:at] + other[first % (len(other) + 1) :]
        return sample[:65536]

    one = st.sampled_from(samples)
    return st.builds(damage, one, one, st.lists(change, min_size=1, max_size=6)) | st.binary(max_size=200) | one


def fuzz(parser: Parser, seconds: float, number: int) -> dict[str, Any]:
    """Number of examples, seconds of the slowest, and the exception of a crash, if any."""
    found: dict[str, Any] = {"examples": 0, "slowest": 0.0, "crash": ""}
    until, rounds = time.monotonic() + seconds, 0

    def one(data: bytes) -> None:
        begin = time.monotonic()
        with contextlib.suppress(*parser.refusals):
            parser.read(data)
        found["examples"] += 1
        found["slowest"] = max(found["slowest"], time.monotonic() - begin)

    while not rounds or time.monotonic() < until:
        quiet = settings(
            max_examples=100, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck), print_blob=False,
        )  # fmt: skip
        test = seed(number * 1_000_003 + rounds)(quiet(given(damaged(parser.samples))(one)))
        rounds += 1
        try:
            test()
        except Exception as error:
            found["crash"] = f"{type(error).__name__}: {error}"[:300]
            break
    return found


def child(names: list[str], seconds: float, number: int) -> None:
    """Fuzz the parsers ``names``; print a line of JSON before and after each."""
    with tempfile.TemporaryDirectory() as folder:
        known = parsers(Path(folder))
        fuzz(known["control frames"], 0.0, number)  # loads libraries before memory is measured
        for name in names or list(known):
            print(json.dumps({"begin": name}), flush=True)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found = fuzz(known[name], seconds, number)
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            print(json.dumps({"name": name, "grown": grown, **found}), flush=True)


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    with tempfile.TemporaryDirectory() as folder:
        names = list(parsers(Path(folder)))
    seconds = SECONDS * scale.share
    each = seconds * (1 - WIRE) / len(names)
    left = names
    while left:
        done = yield from _watched(left, each, scale.seed)
        left = left[done:]
    with setup.model_path(str(model) if model else None) as path, setup.serving(path) as daemon:
        yield wire(daemon, seconds * WIRE, scale.seed)


def _watched(names: list[str], seconds: float, number: int) -> Iterator[AttackRow]:
    """Fuzz ``names`` in one process; returns the number of parsers done: all, or up to the one that hangs."""
    command = [sys.executable, "-m", "bench.attack.fuzz", str(seconds), str(number), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        done, name = 0, names[0]
        while waiting.select(seconds + HANGS):
            line = process.stdout.readline()
            if not line:
                break
            said = json.loads(line)
            name = said.get("begin", name)
            if "name" in said:
                done += 1
                yield _row(said)
        if done < len(names):
            process.kill()
            yield AttackRow("fuzz", name, "no crash, no hang", "it hangs, or its process has died", False)
            return done + 1
        return done


def _row(said: dict[str, Any]) -> AttackRow:
    held = not said["crash"] and said["slowest"] < SLOW and said["grown"] < GROWTH
    text = f"{said['examples']} read, the slowest {1000 * said['slowest']:.0f} ms, {said['grown'] / 2**20:.0f} MiB"
    reach = f"no crash, none above {SLOW:g} s, less than {GROWTH // 2**20} MiB"
    return AttackRow("fuzz", said["name"], reach, f"{text}{', ' + said['crash'] if said['crash'] else ''}", held)


# -- a daemon ----------------------------------------------------------------------------------------------------------

HEADS = (
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/streams/a?model=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    b"Content-Type: application/json\r\n\r\n[]",
    b"POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Encoding: gzip\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: streamer\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
)
FRAMES = (
    b"\x81\x90\0\0\0\0" + b'{"type":"start"}',
    b"\x82\x84\0\0\0\0abcd",
    b"\x01\x81\0\0\0\0{\x80\x81\0\0\0\0}",
    b"\x89\x80\0\0\0\0\x8a\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
    b"\x81\xfe\x00\x0e\0\0\0\0" + b'{"type":"end"}',
)


def wire(daemon: setup.Served, seconds: float, number: int) -> AttackRow:
    """Send damaged heads, and damaged frames after a good head. The daemon must answer or close, and be ready at the
    end."""
    heads, frames = damaged(HEADS), st.lists(damaged(FRAMES), max_size=6).map(b"".join)
    before, until, sent = daemon.resident_bytes(), time.monotonic() + seconds, 0

    def one(data: bytes) -> None:
        nonlocal sent
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", daemon.port), HANGS) as client,
        ):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        sent += 1

    rounds = 0
    while not rounds or time.monotonic() < until:
        quiet = settings(
            max_examples=50,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        test = quiet(given(heads | frames.map(lambda data: HEADS[-1] + data))(one))
        seed(number * 1_000_003 + rounds)(test)()
        rounds += 1
    grown = daemon.resident_bytes() - before
    well = daemon.process.poll() is None and setup.ready(daemon.port)
    text = f"{sent} sent, {grown / 2**20:.0f} MiB, {'ready' if well else 'gone'}"
    return AttackRow(
        "fuzz",
        "HTTP heads and WebSocket frames, a daemon",
        f"ready, less than {GROWTH // 2**20} MiB",
        text,
        well and grown < GROWTH,
    )


if __name__ == "__main__":
    child(sys.argv[3:], float(sys.argv[1]), int(sys.argv[2]))
