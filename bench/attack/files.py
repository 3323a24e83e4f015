"""Model files that need too much memory, or are not models: each is refused with one message and exit code 78.

The message has the size and the setting that allows more; no memory of that size is allocated before.
"""

from __future__ import annotations

import base64
import contextlib
import json
import lzma
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from bench.attack import AttackRow, Scale
from bench.attack.victim import Victim
from streamer.contract.manifest import KEY, Packed

__all__ = ["CASES", "MOST_BYTES", "run", "write"]

#: The most memory of a daemon that refuses a file: that of a normal start, and some reserve.
MOST_BYTES = 1500 * 2**20
CONFIG = 78


def _manifest(chunk: tuple[int, ...], state: tuple[int, ...], output: tuple[int, ...]) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "hostile",
        "version": "1",
        "task": "raw",
        "licence": "none",
        "input": {"name": "x", "dtype": "float32", "chunk_shape": chunk, "step_seconds": 1.0},
        "states": [{"in": "s", "out": "t", "dtype": "float32", "shape": state}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": output}],
        "latency": 0,
        "flush": 0,
        "max_batch": 4,
        "options": {},
        "provenance": {"data": "none", "revision": "none", "tolerance": 0.0},
        "golden": {"chunks": [], "outputs": {"y": []}},
    }


def write(path: Path, manifest: dict[str, Any] | str, ranks: tuple[int, int, int] = (2, 1, 2)) -> Path:
    """Write a file whose graph returns its input and its state, for any shapes of these ranks."""

    def value(name: str, rank: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *(f"{name}{i}" for i in range(rank))])

    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 4, 3])
    same = helper.make_node("Identity", ["x"], ["y"])
    nodes = [
        same if ranks[0] == ranks[2] else helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Identity", ["s"], ["t"]),
    ]
    ins, outs = [value("x", ranks[0]), value("s", ranks[1])], [value("y", ranks[2]), value("t", ranks[1])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ins, outs, [shape]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    helper.set_model_props(model, {KEY: text})
    onnx.save(model, str(path))
    return path


def _bomb(size: int) -> dict[str, Any]:
    """A packed option of ``size`` repetitive bytes, which compress to almost nothing."""
    packer, piece = lzma.LZMACompressor(preset=0), b"a\tA\n" * 2**18
    parts = [packer.compress(piece) for _ in range(size // len(piece))]
    return {"xz": base64.b64encode(b"".join([*parts, packer.flush()])).decode(), "size": size}


def _greedy_dictionary() -> dict[str, Any]:
    wanted = {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 * 2**20}
    return {"xz": base64.b64encode(lzma.compress(b"a\tA\n", filters=[wanted])).decode(), "size": 4}


def _speech(**options: Any) -> dict[str, Any]:
    found = _manifest((12,), (1,), (4, 3))
    found["task"] = "transcribe"
    found["input"] = {"name": "x", "dtype": "float32", "chunk_shape": (12,), "sample_rate": 8000}
    decoder = {"kind": "beam"}
    found["options"] = {"tokens": ["_", "A", "B"], "blank": 0, "units": "phones", "decoder": decoder, **options}
    return found


def _long_words() -> dict[str, Any]:
    """Two megabytes of text whose table would need a terabyte."""
    text = "".join(f"w{i}\tA\n" for i in range(100_000)) + "long\t" + "A " * 1_000_000 + "\n"
    return Packed.pack(text.encode()).model_dump()


def _changed(**fields: Any) -> dict[str, Any]:
    return _manifest((4, 1), (1,), (4, 1)) | fields


def _text(old: str, new: str) -> str:
    text = json.dumps(_manifest((4, 1), (1,), (4, 1)))
    assert old in text
    return text.replace(old, new, 1)


def _sparse(path: Path) -> Path:
    with path.open("wb") as file:
        os.truncate(file.fileno(), 100 * 2**30)
    return path


def _raw(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


Case = tuple[Callable[[Path], Path], str]
#: By name: the function that writes the file, and a part of the refusal.
CASES: dict[str, Case] = {
    "100 GB of state": (lambda p: write(p, _manifest((4, 1), (25 * 10**9,), (4, 1))), "max_model_bytes"),
    "state of many streams": (lambda p: write(p, _manifest((4, 1), (10**7,), (4, 1))), "max_state_bytes"),
    "a chunk of a petabyte": (lambda p: write(p, _manifest((2**48, 1), (1,), (2**48, 1))), "max_model_bytes"),
    "a shape beyond 64 bits": (lambda p: write(p, _manifest((4, 1), (2**62,), (4, 1))), "max_model_bytes"),
    "1 GiB packed": (lambda p: write(p, _speech(lexicon=_bomb(2**30)), (1, 1, 2)), "less than or equal to 268435456"),
    "64 million words": (lambda p: write(p, _speech(lexicon=_bomb(256 * 2**20)), (1, 1, 2)), "max_model_bytes"),
    "an endless word": (lambda p: write(p, _speech(lexicon=_long_words()), (1, 1, 2)), "max_model_bytes"),
    "a dictionary of 1.5 GiB": (lambda p: write(p, _speech(lexicon=_greedy_dictionary()), (1, 1, 2)), "damaged"),
    "5000 digits": (lambda p: write(p, _text('"latency": 0', f'"latency": {"9" * 5000}')), "not JSON"),
    "5000 digits of options": (lambda p: write(p, _text('"options": {}', f'"options": {{"a": {"9" * 5000}}}')), "JSON"),
    "brackets in brackets": (lambda p: write(p, _text('"options": {}', '"options": ' + "[" * 10**5)), "not JSON"),
    "deep and closed": (lambda p: write(p, _text("{}", '{"a": ' + "[" * 9999 + "]" * 9999 + "}")), "not JSON"),
    "a batch of 1e18 as a float": (lambda p: write(p, _text('"max_batch": 4', '"max_batch": 1e18')), "max_batch"),
    "a name of a megabyte": (lambda p: write(p, _changed(name="n" * 2**20)), "name"),
    "a hundred thousand faults": (lambda p: write(p, _changed(states=[{"in": 3}] * 10**5)), "states"),
    "a file of 100 GB": (_sparse, "max_model_bytes"),
    "no bytes": (lambda p: _raw(p, b""), "no ONNX file"),
    "garbage": (lambda p: _raw(p, os.urandom(10**6)), "no ONNX file"),
    "half a file": (lambda p: _raw(p, write(p, _changed()).read_bytes()[:150]), "hostile.onnx"),
    "a device": (lambda p: Path("/dev/zero"), "no model"),
}


def run(scale: Scale) -> Iterator[AttackRow]:
    names = sorted(CASES)[: max(3, round(len(CASES) * scale.share))]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            make, wanted = CASES[name]
            path = make(Path(folder) / "hostile.onnx")
            code, peak, message = start(Path(folder) / "daemon", path)
            short = " ".join(message.replace(f"{folder}/", "").split())[:120]
            found = f"exit {code}, {peak / 2**20:.0f} MiB, {short}"
            held = code == CONFIG and peak < MOST_BYTES and wanted in message
            yield AttackRow(
                "files", name, f"exit {CONFIG}, below {MOST_BYTES / 2**20:.0f} MiB, says {wanted}", found, held
            )
        yield _huge_batch(Path(folder))


def _huge_batch(folder: Path) -> AttackRow:
    """A huge max_batch has no effect: the daemon chooses a batch size that is efficient and fits."""
    victim = Victim(folder / "batch", [write(folder / "batch.onnx", _changed(max_batch=10**18))])
    served = victim.wait_ready()
    code = victim.end()
    return AttackRow(
        "files", "max_batch of 1e18", "is served, exit 0", f"served: {served}, exit {code}", served and code == 0
    )


def start(folder: Path, path: Path) -> tuple[int, int, str]:
    """Start a daemon: its exit code, largest resident size in bytes, and its last error message."""
    victim, peak = Victim(folder, [path]), 0
    while victim.lives:
        with contextlib.suppress(OSError, StopIteration, IndexError):  # an ending process has no memory any more
            lines = Path(f"/proc/{victim.process.pid}/status").read_text().splitlines()
            peak = max(peak, 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))
        time.sleep(0.002)
    records = [json.loads(line) for line in victim.output().splitlines() if line.startswith("{")]
    message = next((record["event"] for record in reversed(records) if record["level"] == "error"), "")
    return victim.end(), peak, str(message) or victim.output()[-300:]
