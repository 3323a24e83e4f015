"""The site builds without a complaint: all pages are in it, links and anchors lead somewhere, nothing is fetched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.command import ROOT


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.long
def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / (place if place.name != "index" else place.parent) / "index.html").exists(), page
    assert (site / "deploy" / "index.html").exists()
    for card in (ROOT / "models" / "pretrained").glob("*.md"):
        assert (site / "models" / "pretrained" / card.stem / "index.html").exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text("utf-8")
        assert re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="?https?://[^">]+', text) == [], page
    sheets = "".join(sheet.read_text("utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?https?://", sheets) == []


def test_pages_come_in_the_order_of_use() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    titles = [next(iter(entry)) for entry in nav[1:]]
    first = ["Start in five minutes", "Captions", "Sensors", "Your own model", "Train", "Protocols"]
    assert titles[:10] == [*first, "Operate", "Metrics", "Design", "Benchmarks"]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[no such part](#no-such-part)", "no-such-part"),
        ("[no such part](../other.md)", "other.md"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(written: str, complaint: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Title\n\n{written}\n", "utf-8")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    config |= {"docs_dir": str(docs), "nav": ["index.md"], "hooks": [str(ROOT / "scripts" / "docs_hooks.py")]}
    config["validation"]["nav"]["omitted_files"] = "ignore"
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), "utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr
