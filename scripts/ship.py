"""Makes a trained checkpoint one of the shipped models: exports and measures it, and writes the card beside it.

    python scripts/ship.py runs/digits/best.pt --log runs/digits/log.jsonl
    python scripts/ship.py runs/english/best.pt --options runs/english/options.json --lm runs/lm.bin

Needs the shared recordings. The scores are those of the exported file, with the daemon's registry, engine and decoder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import models  # noqa: E402
from bench import asr, engine  # noqa: E402
from export.__main__ import main as export  # noqa: E402
from export.compare import BATCHES, milliseconds  # noqa: E402
from models.training.card import FAMILIES, Card, Result, Variant, curves, some_errors  # noqa: E402
from streamer.engine.model import Model  # noqa: E402

SHIPPED = ROOT / "models" / "pretrained"


def streams_per_core(model: Model) -> tuple[int, int]:
    """(real-time streams for one thread, best batch size), of the model alone."""
    rates = {batch: engine.bare(model, batch, 1, 3.0)[0] for batch in (1, 8, 32)}
    best = max(rates, key=lambda batch: rates[batch])
    return int(rates[best] * model.manifest.chunk_seconds), best


def int8(command: list[str], shipped: Path, parts: list[asr.Part], rate: int, folder: Path) -> Variant | None:
    """The int8 variant of the export ``command``, compared with the shipped file; ``None`` if it was refused."""
    path = folder / f"int8-{shipped.name}"
    if export([*command, "--int8", "-o", str(path), "--endurance", "100"]):
        return None
    plain, small = Model.load(shipped), Model.load(path)
    speeds = {batch: milliseconds(plain, batch) / milliseconds(small, batch) for batch in BATCHES}
    scores = asr.measure(str(path), parts, rate)
    return Variant("int8", path.stat().st_size / 1e6, speeds, {test: s["wer"] for test, s in scores.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--log", type=Path, help="log.jsonl of the training run (default: beside the checkpoint)")
    parser.add_argument("--summary", default="")
    parser.add_argument("--note", action="append", default=[], help="a paragraph for the card; may be repeated")
    parser.add_argument("--train", default="", help="the command that trained it, for the card")
    for name in ("options", "lexicon", "lm", "letters"):
        parser.add_argument(f"--{name}", type=Path, help="as python -m export takes it")
    given = parser.parse_args()

    module, info = models.load(given.checkpoint)
    name = info["name"]
    extra = [f"--{key}={getattr(given, key)}" for key in ("options", "lexicon", "lm", "letters") if getattr(given, key)]
    command = [str(given.checkpoint), *extra]
    with tempfile.TemporaryDirectory() as folder:
        trial, scores = Path(folder) / f"{name}.onnx", Path(folder) / "scores.json"
        if code := export([*command, "-o", str(trial), "--endurance", "100"]):
            return code
        parts = [part for part in asr.PARTS[name](info["sample_rate"]) if part.utterances]
        texts = asr.heard(str(trial), parts, info["sample_rate"])
        found = {part.name: asr.score(part, texts[part.name]) for part in parts}
        scores.write_text(json.dumps({f"wer, {test}": round(s["wer"], 4) for test, s in found.items()}))
        path = SHIPPED / f"{name}.onnx"
        if code := export([*command, "-o", str(path), "--scores", str(scores)]):
            return code
        variant = int8(command, path, parts, info["sample_rate"], Path(folder))
    model = Model.load(path)
    streams, batch = streams_per_core(model)
    log = given.log or given.checkpoint.parent / "log.jsonl"
    curves(log, path.with_suffix(".png"))
    first = parts[0]
    pairs = list(zip((u.text.lower() for u in first.utterances), texts[first.name], strict=True))
    manifest = model.manifest
    minutes = json.loads(log.read_text().splitlines()[-1])["minutes"]
    card = Card(
        name=name,
        summary=given.summary or manifest.description,
        data=info["data"],
        licence=info["licence"],
        facts={
            "family": FAMILIES[info["family"]],
            "parameters": f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M",
            "file": f"{path.stat().st_size / 1e6:.1f} MB",
            "input": f"PCM, {manifest.input.sample_rate} Hz, chunks of {1000 * manifest.chunk_seconds:.0f} ms",
            "output": f"{len(info['tokens'])} tokens, {manifest.steps / manifest.chunk_seconds:.1f} steps a second",
            "state": f"{manifest.state_bytes / 1024:.0f} KiB a stream",
            "streams per core": f"{streams} in real time, model alone, batch {batch}, one thread",
            "trained for": f"{minutes:.0f} minutes on one core",
        },
        results=[
            Result(test, s["wer"], s["low"], s["high"], s["words"], s["recordings"], s["speakers"])
            for test, s in found.items()
        ],
        errors=some_errors(pairs),
        notes=[
            *given.note,
            *([] if variant else ["The int8 variant is refused by the judge: it breaks the chunk law."]),
        ],
        variants=[variant] if variant else [],
        commands=[*([given.train] if given.train else []), f"python -m bench asr --model {name}"],
    )
    path.with_suffix(".md").write_text(card.markdown(path.with_suffix(".png").name))
    print(path.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
