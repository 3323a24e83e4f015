"""Hooks for MkDocs: adds pages from outside of ``docs/`` (cards of models, ``deploy/``) to the site, and adapts links
between pages, so that they work on the site and in the checkout."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
#: Source files of pages outside of docs/, by their place on the site.
ELSEWHERE = {
    str(path.relative_to(ROOT)): path
    for path in [*sorted((ROOT / "models" / "pretrained").glob("*.md")), ROOT / "deploy" / "README.md"]
}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: Any) -> Files:
    for place, path in ELSEWHERE.items():
        files.append(File.generated(config, place, content=path.read_text("utf-8")))
        for picture in path.parent.glob("*.png"):
            where = posixpath.join(posixpath.dirname(place), picture.name)
            if files.get_file_from_path(where) is None:
                files.append(File.generated(config, where, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    place = page.file.src_uri
    source = place if place in ELSEWHERE else f"docs/{place}"

    def found(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        on_site = path.removeprefix("docs/")
        if files.get_file_from_path(on_site) is not None:
            return f"{text}({posixpath.relpath(on_site, posixpath.dirname(place) or '.')}{anchor})"
        if (ROOT / path).exists() and not path.startswith("docs/"):
            return f"{text[1:-1]} (`{path}`)"  # a file of the checkout that is not on the site
        return match[0]  # MkDocs reports it

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)  # code is not changed
    return "".join(part if part.startswith("```") else LINK.sub(found, part) for part in parts)
