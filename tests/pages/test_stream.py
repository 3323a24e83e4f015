"""The page's own part of a live stream, against a daemon that is away for long, forgets, or acknowledges nothing.

No daemon does these things in the time of a test, so its side of the socket is written here; the page's is the page's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.pages.browser import watched

pytestmark = pytest.mark.long

#: A second of sound is a block of 100 samples.
SCRIPT = """
async () => {
  const { LiveStream } = await import("/pages/stream.js");
  const real = globalThis.WebSocket, sockets = [];
  globalThis.WebSocket = class {
    bufferedAmount = 0;
    blocks = 0;
    constructor() { sockets.push(this); }
    send(data) { this.blocks += typeof data !== "string"; }
    close() {}
    says(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  };
  const told = { lost: [], finals: [], states: [] };
  const stream = new LiveStream({ model: "digits", rate: 100, options: {} }, (kind, detail) => {
    if (kind === "lost") told.lost.push(detail);
    if (kind === "event" && detail.type === "final") told.finals.push(detail.start);
    if (kind === "state") told.states.push(detail.state);
  });
  const now = () => sockets[sockets.length - 1];
  const ready = (position) => now().says({ type: "ready", stream: "s", position });
  const speak = (seconds) => { for (let at = 0; at < seconds; at++) stream.push(new Int16Array(100)); };
  const final = (start, end, seq) => now().says({ type: "final", text: "one", start, end, seq });
  const breaks = async (frame) => {
    now().says(frame);
    await stream.closed({ code: 1012 });
    clearTimeout(stream.retry);
    stream.connect();
  };
  try {
    STEPS
    return { ...told, blocks: now().blocks };
  } finally {
    stream.finish("ended", "");
    globalThis.WebSocket = real;
  }
}
"""
RESTART = '{ type: "restart", position: 0, retry_after: 0 }'
GONE = '{ type: "error", code: "unknown_stream", message: "there is no such stream" }'


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    with watched(browser, url) as page:
        page.goto("/")
        yield page


def test_what_is_not_acknowledged_is_not_lost(page: Page) -> None:
    assert page.evaluate(SCRIPT.replace("STEPS", "ready(0); speak(300)"))["lost"] == []


def test_what_is_lost_is_said_once_and_times_go_on(page: Page) -> None:
    """10 seconds are sent, 5 acknowledged; of the next 130 two minutes are kept; the daemon goes back to second 8."""
    steps = (
        f'ready(0); speak(10); now().says({{ type: "ack", position: 500 }}); const back = breaks({RESTART}); speak(130)'
    )
    told = page.evaluate(SCRIPT.replace("STEPS", f"{steps}; await back; ready(800); final(7, 7.5, 1); final(8, 9, 2)"))
    assert told["lost"] == [12]
    assert told["blocks"] == 120
    assert told["finals"] == [7, 20]


def test_a_stream_that_is_gone_brings_no_final_twice(page: Page) -> None:
    steps = f"ready(0); speak(10); final(0, 6, 1); await breaks({GONE}); ready(0); final(1, 2, 1)"
    told = page.evaluate(SCRIPT.replace("STEPS", steps))
    assert told["blocks"] == 4
    assert told["finals"] == [0, 7]


def test_what_is_stopped_while_the_daemon_is_asked_stays_stopped(page: Page) -> None:
    steps = "ready(0); const closed = stream.closed({ code: 1006 }); stream.abandon(); await closed"
    assert page.evaluate(SCRIPT.replace("STEPS", steps))["states"][-1] == "ended"
