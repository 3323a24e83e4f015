"""The page of captions in a real browser: a recording is spoken into its microphone, and the words appear."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import connect

from streamer.engine.catalogue import resolve
from tests.daemon.running import daemon
from tests.daemon.tenants import give
from tests.pages.browser import PATIENCE, launch, watched
from tests.pages.conftest import ROOT

pytestmark = pytest.mark.long  # a recording takes as long as it is

expect.set_options(PATIENCE)
WORDS = (ROOT / "samples" / "digits.txt").read_text("utf-8").split()
MARKUP = "<img src=x onerror=alert(1)>"
#: What the browser itself says of a request that the daemon refuses.
REFUSED = "Failed to load resource", "WebSocket connection to"
#: And of a header that counts in a secure context alone.
OPENER = "Cross-Origin-Opener-Policy"


def start(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status").first).to_have_text("Listens.")


def words(page: Page) -> list[str]:
    return list(page.locator("#captions .word").evaluate_all("all => all.map(word => word.firstChild.data)"))


def heard(page: Page, count: int) -> None:
    page.locator("#captions .word").nth(count - 1).wait_for()


@pytest.fixture(scope="module")
def spoken(browser: Browser, url: str) -> Iterator[Page]:
    """The page after the whole recording."""
    with watched(browser, url, permissions=["clipboard-read", "clipboard-write", "microphone"]) as page:
        start(page)
        expect(page.locator("#captions .partial")).not_to_be_empty()
        heard(page, len(WORDS))
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        expect(page.get_by_role("status").first).to_have_text("Done.")
        yield page


def test_spoken_words_appear(spoken: Page) -> None:
    assert words(spoken) == WORDS
    assert spoken.get_by_role("log").get_attribute("aria-live") == "polite"


def test_confidence_is_seen_and_read(spoken: Page) -> None:
    sure = spoken.locator("#captions .word").evaluate_all("all => all.map(w => Number(w.dataset.confidence))")
    assert all(0 < confidence <= 1 for confidence in sure)
    first = spoken.locator("#captions .word sub").first
    expect(first).to_be_hidden()
    spoken.get_by_role("button", name="Confidence in numbers").click()
    expect(first).to_be_visible()
    assert first.text_content() == f"{math.floor(100 * sure[0] + 0.5)}"
    spoken.get_by_role("button", name="Confidence in numbers").click()


def test_partials_are_grey_and_finals_black(spoken: Page) -> None:
    script = "kind => { const p = document.createElement('p'); p.className = kind; document.getElementById('captions')"
    script += ".append(p); const c = getComputedStyle(p).color; p.remove(); return c }"
    assert spoken.evaluate(script, "partial") == "rgb(99, 98, 92)"
    assert spoken.evaluate(script, "") == "rgb(26, 26, 24)"


def test_copy_and_downloads(spoken: Page) -> None:
    spoken.get_by_role("button", name="Copy").first.click()
    expect(spoken.get_by_role("status").first).to_have_text("Copied.")
    assert spoken.evaluate("navigator.clipboard.readText()").split() == WORDS
    for button, suffix in (("Text", ".txt"), ("SRT", ".srt")):
        with spoken.expect_download() as waiting:
            spoken.get_by_role("button", name=button, exact=True).first.click()
        assert waiting.value.suggested_filename.endswith(suffix)
        text = Path(waiting.value.path()).read_text("utf-8")
        if suffix == ".txt":
            assert text.split() == WORDS
        else:
            blocks = [block.split("\n") for block in text.strip().split("\n\n")]
            assert [block[0] for block in blocks] == [str(number + 1) for number in range(len(blocks))]
            assert " ".join(block[2] for block in blocks).split() == WORDS


def test_recordings_are_transcribed(browser: Browser, url: str) -> None:
    sound = (ROOT / "samples" / "digits.flac").read_bytes()
    with watched(browser, url, *REFUSED) as page:
        page.goto("/")
        name = f"{MARKUP}.flac"
        chosen = {"name": name, "mimeType": "audio/flac", "buffer": sound}
        page.locator("#files").set_input_files(chosen)
        card = page.get_by_role("region", name=name, exact=True)
        expect(card.locator(".word")).to_have_count(len(WORDS))
        assert card.get_by_role("heading").text_content() == name
        # the same file, dropped beside the box, and one that is no sound
        page.evaluate(
            """bytes => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.flac"));
            data.items.add(new File(["no sound"], "notes.txt"));
            document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true,
              dataTransfer: data})) }""",
            list(sound),
        )
        expect(page.get_by_role("region", name="dropped.flac", exact=True).locator(".word")).to_have_count(len(WORDS))
        expect(page.get_by_role("region", name="notes.txt", exact=True).locator(".bad")).not_to_be_empty()


def test_words_are_no_markup(browser: Browser, url: str) -> None:
    """No model of ours says markup; the page would show it as it is."""
    with watched(browser, url) as page:
        page.goto("/")
        page.evaluate(
            """async said => { const { Transcript } = await import("/pages/transcript.js");
            const shown = new Transcript(document.getElementById("captions"));
            shown.take({type: "partial", text: said});
            shown.take({type: "final", text: said, start: 0, end: 1, words: [
              {word: said, start: 0, end: 1, confidence: 0.5}]});
            shown.take({type: "final", text: said, start: 0, end: 1, words: []}) }""",
            MARKUP,
        )
        assert page.locator("#captions img").count() == 0
        expect(page.locator("#captions")).to_contain_text(MARKUP)


def test_a_long_transcript_is_bounded(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        page.goto("/")
        kept, shown, forgotten, first, partial = page.evaluate(
            """async () => { const { Transcript } = await import("/pages/transcript.js");
            const box = document.getElementById("captions");
            const said = new Transcript(box, "", {shown: 5, kept: 20});
            said.show("and");
            for (let at = 0; at < 30; at++) {
              said.take({type: "final", text: `${at}`, start: at, end: at + 1, words: []});
              said.show("and");
            }
            return [said.finals.length, box.children.length, said.forgotten, said.text.split("\\n")[0],
              box.lastElementChild.textContent] }"""
        )
        assert (kept, forgotten, first, partial) == (20, 10, "10", "and")
        assert shown <= 6


def test_progress_is_told_in_words_once_and_not_by_the_percent(browser: Browser, url: str) -> None:
    with watched(browser, url, *REFUSED) as page:
        page.goto("/")
        expect(page.get_by_role("status").first).to_have_text("Ready.")  # said once the models are known
        told = page.evaluate(
            """async () => {
            window.XMLHttpRequest = class {
              upload = {}; status = 200; responseText = '{"segments": [], "words": [], "duration": 1}';
              open() {} setRequestHeader() {} getResponseHeader() {}
              send() { (async () => {
                for (let at = 1; at <= 50; at++) {
                  this.upload.onprogress({loaded: at, total: 50});
                  await new Promise(requestAnimationFrame);
                }
                this.onload(); })(); }
            };
            const told = [];
            new MutationObserver((changes) => {
              for (const { target } of changes) {
                const where = target.nodeType === 1 ? target : target.parentElement;
                const live = where?.closest("[aria-live], [role=status], [role=alert], [role=log], [aria-hidden]");
                if (live && live.ariaLive !== "off" && live.ariaHidden !== "true") told.push(live.textContent);
              }
            }).observe(document.getElementById("recordings").parentNode,
              {childList: true, characterData: true, subtree: true});
            const { takeRecordings } = await import("/pages/recordings.js");
            takeRecordings([new File(["x"], "a.wav")], () => ({}));
            while (!document.querySelector("#recordings button")) await new Promise(requestAnimationFrame);
            return told; }"""
        )
        assert told == ["Sending.", "Transcribing.", "1 s of sound."]


def test_a_killed_daemon_costs_no_word(browser: Browser, tmp_path: Path) -> None:
    model = resolve("digits")
    with daemon(tmp_path, model, checkpoint_seconds=0.2) as first:
        url, port = f"http://127.0.0.1:{first.port}", first.port
        with watched(browser, url, *REFUSED) as page:
            start(page)
            heard(page, 3)
            first.stop(signal.SIGKILL)
            expect(page.get_by_role("status").first).to_have_text("Waits for the daemon.")
            expect(page.get_by_role("alert")).to_contain_text("What you say is kept")
            with daemon(tmp_path, model, checkpoint_seconds=0.2, port=port):
                expect(page.get_by_role("status").first).to_have_text("Listens.")
                heard(page, len(WORDS))
                assert words(page) == WORDS


def test_a_full_daemon_is_told_and_waited_for(browser: Browser, tmp_path: Path) -> None:
    with daemon(tmp_path, resolve("digits"), capacity=1) as running:
        url = f"http://127.0.0.1:{running.port}"
        with watched(browser, url, *REFUSED) as page:
            with connect(running.url) as other:
                other.send('{"type":"start"}')
                assert json.loads(other.recv())["type"] == "ready"
                page.goto("/")
                page.get_by_role("button", name="Start").click()
                expect(page.get_by_role("alert")).to_contain_text("All places are taken")
                other.send('{"type":"end"}')
                while json.loads(other.recv())["type"] != "end":
                    pass
            heard(page, len(WORDS))  # those from before it was let in, too
            assert words(page) == WORDS


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    secret = give(state, "alice", "stream")
    with daemon(tmp_path, resolve("digits")) as running:
        url = f"http://127.0.0.1:{running.port}"
        with watched(browser, url, *REFUSED) as page:
            page.goto("/")
            dialog = page.get_by_role("dialog")
            expect(dialog).to_contain_text("token is needed")
            dialog.get_by_label("Token").fill(secret)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Start").click()
            heard(page, 3)
            assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
            page.get_by_role("button", name="Stop").click()


def test_no_microphone_without_a_secure_context(browser: Browser, tmp_path: Path) -> None:
    """By a name that is not this machine's, and without TLS: the page says what to do, and still takes recordings."""
    with daemon(tmp_path, resolve("digits"), allowed_hosts="captions.example") as running:
        rules = "--host-resolver-rules=MAP captions.example 127.0.0.1"
        elsewhere = launch(browser.browser_type, rules)
        try:
            with watched(elsewhere, f"http://captions.example:{running.port}", OPENER) as page:
                page.goto("/")
                expect(page.get_by_role("alert")).to_contain_text("tls_cert_file")
                expect(page.get_by_role("button", name="Start")).to_be_disabled()
                expect(page.get_by_role("button", name="Choose files")).to_be_enabled()
        finally:
            elsewhere.close()
