"""Which pages may use the daemon, and by which names it is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.access.origins import Origins, host_name

OWN = Origins("127.0.0.1")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8765", "127.0.0.1", "localhost:8765", "LOCALHOST", "app.localhost:1", "[::1]:8765", "10.1.2.3:80"],
)
def test_it_answers_to_its_own_names_and_to_addresses(host: str) -> None:
    assert OWN.host_refusal({"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "localhost, evil.example",
        "localhost:8765@evil.example",
        "[::1]evil.example",
        "[evil]:1",
        "",
        "127.0.0.1:port",
        "localhost:999999",
        "local\u0442host",
    ],
)
def test_it_does_not_answer_to_others(host: str) -> None:
    assert "allowed_hosts" in (OWN.host_refusal({"host": host}) or "")


def test_without_a_host_it_is_no_browser() -> None:
    assert OWN.host_refusal({}) is None


@pytest.mark.parametrize("host", ["stt.example.com", "a.internal", "A.Internal:1", "stt.example.com.:8765"])
def test_names_that_are_allowed(host: str) -> None:
    assert Origins("127.0.0.1", ["stt.example.com", "*.internal"]).host_refusal({"host": host}) is None


def test_a_host_longer_than_any_name_is_none() -> None:
    """What was answered is remembered: it must not be what takes memory."""
    any_name = Origins("127.0.0.1", ["*"])
    assert any_name.host_refusal({"host": "a" * 253 + ":8765"}) is None
    assert any_name.host_refusal({"host": "a" * 301}) is not None


def test_who_was_refused_before_is_refused_again() -> None:
    own = Origins("127.0.0.1")
    for host, good in [("localhost", True), ("evil.example", False)] * 3:
        assert (own.host_refusal({"host": host}) is None) is good


def test_the_name_that_it_listens_on_is_its_own() -> None:
    assert Origins("stt.local").host_refusal({"host": "stt.local:8765"}) is None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", ""])
def test_a_foreign_page_may_not(method: str, origin: str) -> None:
    headers = {"host": "localhost:8765", "origin": origin, "content-type": "application/json"}
    assert "allowed_origins" in (OWN.origin_refusal(method, headers) or "")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8765", "http://localhost:8765"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost:443"),
        ("[::1]:8765", "http://[::1]:8765"),
        ("[::1]", "http://[::1]"),
    ],
)
def test_its_own_pages_may(host: str, origin: str) -> None:
    assert OWN.origin_refusal("POST", {"host": host, "origin": origin}) is None


def test_pages_that_are_allowed() -> None:
    origins = Origins("127.0.0.1", origins=["https://app.example/", "https://*.example.org", "null"])
    for origin in ("https://app.example", "https://a.example.org", "null"):
        assert origins.origin_refusal("POST", {"host": "localhost", "origin": origin}) is None
    for origin in ("http://app.example", "https://app.example.evil", "https://example.org"):
        assert origins.origin_refusal("POST", {"host": "localhost", "origin": origin})
    assert Origins("127.0.0.1", origins=["*"]).origin_refusal("POST", {"host": "x", "origin": "http://any"}) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_that_says_no_origin_is_known_by_its_browser(site: str) -> None:
    image = {"host": "localhost", "sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert OWN.origin_refusal("GET", image)
    assert OWN.origin_refusal("POST", image | {"sec-fetch-mode": "navigate"})  # a form
    assert OWN.origin_refusal("GET", image | {"sec-fetch-mode": "navigate"}) is None  # a link that somebody followed
    assert OWN.origin_refusal("GET", image | {"sec-fetch-site": "none"}) is None  # typed
    assert OWN.origin_refusal("GET", image | {"sec-fetch-site": "same-origin"}) is None


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded; charset=utf-8", "multipart/form-data"]
)
def test_the_form_of_an_old_browser(kind: str | None) -> None:
    """It says no origin. curl, and clients that send text/plain, go on as they are."""
    headers = {"host": "localhost", **({} if kind is None else {"content-type": kind})}
    old = headers | {"user-agent": "Mozilla/5.0 (Windows NT 6.1; rv:60.0) Gecko/20100101 Firefox/60.0"}
    assert "Content-Type: application/json" in (OWN.origin_refusal("POST", old) or "")
    assert OWN.origin_refusal("GET", old) is None
    assert OWN.origin_refusal("POST", old | {"content-type": "application/json"}) is None
    assert OWN.origin_refusal("POST", headers | {"user-agent": "curl/8.5.0"}) is None
    assert OWN.origin_refusal("POST", headers) is None


@given(st.text(max_size=60))
def test_any_host_is_read_without_a_mishap(said: str) -> None:
    name = host_name(said)
    assert name is None or (name and not set(name) & set(" /@,\n\r"))
