"""``docs/inputs.md`` says what the tables say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.inputs.cases import Case, Result, hold
from tests.inputs.document import PAGE, modules, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.inputs.document writes it"


def test_every_case_is_in_the_document_once() -> None:
    for module in modules():
        assert [case.name for case in module.CASES if case.source not in module.ABOUT] == []
        names = Counter((case.source, case.name) for case in module.CASES)
        assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize(
    "result",
    [Result(0, "AB\n", "streamer: x.wav: no\n"), Result(2, "AB\n", ""), Result(2, "B\n", "streamer: x.wav: no\n")],
)
def test_a_case_holds_no_other_outcome(result: Result) -> None:
    case = Case("x", "y", "true", "read", exit=2, says="streamer: …: no", gives="AB")
    hold(case, Result(2, "AB\n", "streamer: x.wav: no\n"))
    with pytest.raises(AssertionError):
        hold(case, result)
