"""All models of the zoo in one table, from their files: size, memory, latency, streams of a core.

Everything but the speed is from the file's manifest; for files without a count of parameters, the numbers in the graph
are an upper bound. Speed is by CPU time of the bare graph with one thread, at the best of several batch sizes, the best
of several rounds: real-time streams if a chunk has a duration, else steps a second. The table is written between the
markers of ``docs/zoo.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import finish
from streamer.contract.manifest import Manifest
from streamer.contract.probe import probe, run
from streamer.engine.catalogue import find_models
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model

TRAINED = Path(__file__).parent.parent / "models" / "zoo" / "trained"
PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
BEGIN, END = "<!-- begin: python -m bench zoo -->", "<!-- end -->"
COLUMNS = ("model", "task", "parameters", "state", "sees", "latency", "a core carries", "scores")
BATCHES = (1, 8, 32)


def seconds(model: Model, rounds: int) -> float:
    """CPU seconds of one chunk of one stream."""
    best = float("inf")
    for batch in sorted({min(size, model.manifest.max_batch) for size in BATCHES}):
        chunks = probe(model.manifest.input, 3, batch, np.random.default_rng(0))
        feeds = {model.manifest.input.name: chunks[-1], **run(model, chunks[:-1])[1]}
        calls = 1
        for _ in range(rounds):
            begin = time.process_time()
            for _ in range(calls):
                model.run(feeds)
            spent = time.process_time() - begin
            best = min(best, spent / calls / batch) if spent > 0 else best
            calls = max(1, round(calls * 0.02 / max(spent, 0.002)))  # the clock is coarse
    return best


def numbers(path: Path) -> int:
    """Number of weights and constants in the graph, float or int8."""
    import onnx

    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    tensors = onnx.load(str(path)).graph.initializer
    return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in tensors if tensor.data_type in kinds)


def facts(path: Path, rounds: int = 12) -> dict[str, Any]:
    model = Model.load(path)
    manifest, spent = model.manifest, seconds(model, rounds)
    known = manifest.provenance.parameters
    return {
        "name": manifest.name,
        "task": manifest.task,
        "parameters": numbers(path) if known is None else known,
        "counted": known is not None,
        "state_bytes": manifest.state_bytes,
        "sees": manifest.provenance.receptive_field,
        "latency": manifest.latency,
        "chunk_steps": manifest.steps,
        "chunk_seconds": manifest.chunk_seconds,
        "streams": manifest.chunk_seconds / spent if manifest.chunk_seconds else None,
        "steps_per_second": manifest.steps / spent,
        "scores": manifest.provenance.scores,
        "manifest": manifest,
    }


def row(found: dict[str, Any]) -> list[str]:
    manifest: Manifest = found["manifest"]
    if not found["counted"]:
        sees = "not said"
    elif found["sees"] is None:
        sees = "no end"
    else:
        sees = f"{found['sees']:,} {'samples' if manifest.input.sample_rate else 'steps'}"
    held = f"{found['latency']} + {found['chunk_steps'] - 1}" if found["chunk_steps"] > 1 else f"{found['latency']}"
    speed = found["streams"]
    size = found["state_bytes"]
    return [
        found["name"],
        found["task"],
        ("" if found["counted"] else "at most ") + f"{found['parameters']:,}",
        f"{size:,} B" if size < 10240 else f"{size / 1024:,.0f} KiB",
        sees,
        held,
        f"{rounded(found['steps_per_second'])} steps/s" if speed is None else f"{rounded(speed)} streams",
        "<br>".join(f"{name}: {value:.4g}" for name, value in found["scores"].items()),
    ]


def rounded(value: float) -> str:
    """Two significant digits, since more would be noise."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write(page: Path, table: str) -> None:
    """Write the table between the markers of ``page``. Raises ``ValueError`` if it has none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", help="default: models/zoo/trained, and what is shipped")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes (default: docs/zoo.md)")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    paths = given.files or [*sorted(TRAINED.glob("*.onnx")), *(p for p in find_models() if p.parent != TRAINED)]
    # in a separate thread, since flushing denormals is a setting of the thread
    with ThreadPoolExecutor(1, initializer=flush_denormals) as lane:
        found = list(lane.map(lambda path: facts(path, given.rounds), paths))
    table = [row(one) for one in found]
    write(given.page, markdown(table))
    results = {one.pop("name"): {key: value for key, value in one.items() if key != "manifest"} for one in found}
    finish("zoo", results, columns=COLUMNS[:-1], rows=[line[:-1] for line in table], as_json=given.json)
    print(f"table: {given.page}")
    return 0
