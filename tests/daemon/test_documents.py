"""The operations page says what the code says."""

import re
import runpy
from pathlib import Path

from streamer.metrics import Metrics
from streamer.serve.stream.protocol import CLOSE_CODES
from streamer.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def rows(heading: str) -> dict[str, tuple[str, str]]:
    section = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section, flags=re.M)
    return {name: (middle, text) for name, middle, text in found}


def test_settings_table() -> None:
    table = rows("Settings")
    assert {name: text for name, (_, text) in table.items()} == {
        n: f.description for n, f in Settings.model_fields.items()
    }
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, (int, float)):
            assert table[name][0] == f"`{field.default!r}`"


def test_the_metrics_page_is_what_the_code_says() -> None:
    scope = runpy.run_path(str(ROOT / "scripts" / "make_metrics_page.py"))
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == scope["page"]()
    assert all(f"`{family.name}`" in scope["page"]() for family in Metrics().registry.collect())


def test_error_table() -> None:
    assert {name: int(close) for name, (close, _) in rows("Errors").items()} == dict(CLOSE_CODES)
