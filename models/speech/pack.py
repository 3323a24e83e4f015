"""Writes a language, decoder settings or other options into an exported file.

    python -m models.speech.pack FILE.onnx --language DIRECTORY -o NEW.onnx
    python -m models.speech.pack FILE.onnx --options options.json -o NEW.onnx

``DIRECTORY``: the output of ``python -m models.speech.language -o DIRECTORY``. The graph, its golden example and its
proofs stay the same; options that do not fit are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from streamer.contract.manifest import Manifest, Packed
from streamer.tasks import create

__all__ = ["language", "repack"]

KEY = "streamer.manifest"


def language(folder: Path) -> dict[str, Any]:
    """The options ``lexicon``, ``lm`` and ``letters``, from the files of a folder."""
    names = {"lexicon": "lexicon.txt", "lm": "lm.bin", "letters": "letters.bin"}
    return {
        option: Packed.pack((folder / name).read_bytes()).model_dump()
        for option, name in names.items()
        if (folder / name).exists()
    }


def repack(source: Path, target: Path, options: Mapping[str, Any], **changes: Any) -> None:
    """Write ``source`` to ``target`` with ``options`` replaced; ``None`` removes an option. ``changes``: new values of
    other fields of the manifest. Raises ``ValueError`` if they do not fit."""
    model = onnx.load(source)
    (entry,) = [entry for entry in model.metadata_props if entry.key == KEY]
    manifest = Manifest.from_metadata({KEY: entry.value})
    merged = {**manifest.options, **options}
    merged = {name: value for name, value in merged.items() if value is not None}
    manifest = Manifest.model_validate({**manifest.model_dump(by_alias=True), "options": merged, **changes})
    create(manifest)
    entry.value = manifest.to_json()
    data = model.SerializeToString(deterministic=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(target)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models.speech.pack", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--language", type=Path, help="folder with lexicon.txt, lm.bin and letters.bin")
    parser.add_argument("--options", type=Path, help="JSON with options, as python -m export takes it")
    given = parser.parse_args(argv)
    options = language(given.language) if given.language else {}
    if given.options:
        options |= json.loads(given.options.read_text(encoding="utf-8"))
    try:
        repack(given.model, given.out, options)
    except (OSError, ValueError) as error:
        print(f"pack: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
