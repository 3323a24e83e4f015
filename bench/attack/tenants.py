"""Holders of tokens against each other: access to another's streams by every protocol; guessing; exceeding limits.

The victim's stream runs meanwhile, and its results must equal those without an attack.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.requests import Answer, bearer, first_frame, request
from streamer.serve.access.tokens import Token, TokenFile, digest, new_secret

BYTES = {"Content-Type": "application/octet-stream"}
MOST, EVERY = 5, 20.0
RATE, STREAMS, DATA = 2.0, 2, 4000


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    with tempfile.TemporaryDirectory() as folder, setup.model_path(str(model) if model else None) as path:
        file = TokenFile(Path(folder) / "tokens.json")
        victim, thief = made(file, "victim", "stream"), made(file, "thief", "stream")
        reader = made(file, "reader", "read")
        limited = {
            "requests": made(file, "requests", "stream", requests_per_second=RATE),
            "streams": made(file, "streams", "stream", max_streams=STREAMS),
            "bytes": made(file, "bytes", "stream", bytes_per_second=DATA),
        }
        bounds = {"STREAMER_MAX_FAILED_TOKENS": str(MOST), "STREAMER_FAILED_TOKEN_SECONDS": str(EVERY)}
        settings = {"STREAMER_TOKEN_FILE": str(file.path), "STREAMER_CHECKPOINT_SECONDS": "0.2", **bounds}
        with setup.serving(path, **settings) as daemon:
            yield from steal(daemon.port, victim, thief, max(2, round(50 * scale.share)), scale.seed)
            yield scopes(daemon.port, reader)
            yield rate(daemon.port, limited["requests"])
            yield streams(daemon.port, limited["streams"])
            yield data(daemon.port, limited["bytes"])
            yield from guess(
                daemon.port, victim, max(20, round(2000 * scale.share))
            )  # last, since new clients have to wait afterwards


def made(file: TokenFile, name: str, scope: str, **limits: float) -> str:
    secret = new_secret()
    fields = {"name": name, "owner": name, "sha256": digest(secret), "scopes": [scope], **limits}
    file.add(Token.model_validate(fields))
    return secret


def steal(port: int, victim: str, thief: str, rounds: int, seed: int) -> Iterator[AttackRow]:
    """Try the key over HTTP, the id over the WebSocket, and the sessions' routes, in many spellings."""
    noise = np.random.default_rng(seed).integers(-9000, 9000, (rounds, 3200)).astype("<i2")
    own, other = BYTES | bearer(victim), BYTES | bearer(thief)
    said: list[str] = []
    taken: list[str] = []
    attempts = 0

    def look(answer: Answer, what: str, *harmless: int) -> None:
        nonlocal attempts
        attempts += 1
        if answer.status not in harmless:
            taken.append(f"{what}: {answer.status}")

    for number, piece in enumerate(noise):
        answer = request(port, "POST", f"/v1/streams/secret?position={3200 * number}", piece.tobytes(), own)
        said.append(answer.text if answer.status == 200 else f"{answer.status}")
        for name in ("secret", "victim\x1fsecret", "\x1fsecret", "victim/secret", "../victim/secret", "victim\0secret"):
            path = f"/v1/streams/{quote(name, safe='')}"
            look(request(port, "GET", path, headers=other), f"GET {name!r}", 400, 404)
            look(request(port, "DELETE", path, headers=other), f"DELETE {name!r}", 400, 404)
            status, frame = first_frame(port, "/v1/stream", bearer(thief), {"type": "resume", "stream": name})
            look(Answer(404 if frame.get("type") == "error" else status, "", None), f"resume {name!r}", 404)
        # the same key is a new stream of the attacker's own
        look(request(port, "POST", "/v1/streams/secret?position=3200", piece.tobytes(), other), "go on", 409)
        for path in ("/v1/sessions", "/v1/sessions/secret", "/v1/sessions/victim%1Fsecret", "/metrics"):
            look(request(port, "GET", path, headers=other), path, 403)
        look(request(port, "POST", "/v1/sessions/victim%1Fsecret/export", b"", other), "export", 403)
    yield AttackRow(
        "tenants",
        "attempts at another's stream that succeeded",
        "0",
        f"{len(taken)} of {attempts}" + (f", {taken[0]}" if taken else ""),
        not taken,
    )

    request(port, "DELETE", "/v1/streams/alone", headers=own)
    alone = [
        request(port, "POST", f"/v1/streams/alone?position={3200 * number}", piece.tobytes(), own).text
        for number, piece in enumerate(noise)
    ]

    def contents(texts: list[str]) -> list[object]:
        return [json.loads(text)["events"] if text.startswith("{") else text for text in texts]

    same = contents(said) == contents(alone)
    yield AttackRow("tenants", "its owner's outputs", "as without the attack", "equal" if same else "different", same)


def scopes(port: int, reader: str) -> AttackRow:
    wanted = [
        ("POST", "/v1/streams/a"), ("DELETE", "/v1/streams/a"), ("POST", "/v1/readings"), ("POST", "/write"),
        ("POST", "/api/v1/write"), ("POST", "/v1/metrics"), ("POST", "/v1/generate"), ("DELETE", "/v1/forecast/a"),
        ("POST", "/v2/models/a/infer"), ("GET", "/v1/sessions"), ("POST", "/v1/sessions/a/import"),
    ]  # fmt: skip
    found = [request(port, method, path, b"[]", bearer(reader)).status for method, path in wanted]
    held = set(found) == {403}
    return AttackRow(
        "tenants",
        "other operations of a token that may only read",
        "nothing",
        f"{found.count(403)} of {len(found)} refused",
        held,
    )


def guess(port: int, victim: str, guesses: int) -> Iterator[AttackRow]:
    """Guess tokens as fast as possible, from the address of the working victim."""
    begin = time.monotonic()
    checked, unexplained, kept_out = 0, 0, 0
    for number in range(guesses):
        answer = request(port, "GET", "/v1/models", headers=bearer(new_secret()))
        checked += answer.status == 401
        unexplained += answer.status not in (401, 429) or (answer.status == 429 and not answer.retry_after)
        if number % 10 == 0:
            kept_out += request(port, "GET", "/v1/models", headers=bearer(victim)).status != 200
    most = MOST + (time.monotonic() - begin) / EVERY + 1
    text = f"{checked} of {guesses}"
    yield AttackRow(
        "tenants", "wrong tokens that were checked", f"{MOST}, and one in {EVERY:g} s", text, checked <= most
    )
    yield AttackRow("tenants", "others without 429 and Retry-After", "0", str(unexplained), unexplained == 0)
    yield AttackRow("tenants", "refusals of the victim, who shares the address", "0", str(kept_out), kept_out == 0)


def rate(port: int, secret: str) -> AttackRow:
    """Send requests as fast as possible, then after the given Retry-After."""
    begin = time.monotonic()
    answers = [request(port, "GET", "/v1/models", headers=bearer(secret)) for _ in range(40)]
    most = RATE + RATE * (time.monotonic() - begin) + 1
    good = sum(answer.status == 200 for answer in answers)
    explained = all(answer.status == 200 or (answer.status == 429 and answer.retry_after) for answer in answers)
    # on a slow machine the last request may have been answered, so that the next one is refused
    time.sleep(max(answer.retry_after or 0.0 for answer in answers))
    again = request(port, "GET", "/v1/models", headers=bearer(secret)).status
    held = 1 <= good <= most and explained and again == 200
    return AttackRow(
        "tenants",
        f"answered of 40 requests at once, {RATE:g} a second allowed",
        f"{most:.0f} at most, then after Retry-After",
        f"{good}, then {again}",
        held,
    )


def streams(port: int, secret: str) -> AttackRow:
    given = BYTES | bearer(secret)
    answers = [request(port, "POST", f"/v1/streams/{number}", bytes(640), given) for number in range(6)]
    good = [answer.status for answer in answers].count(200)
    explained = all(answer.status == 200 or (answer.status == 429 and answer.retry_after) for answer in answers)
    frame = first_frame(port, "/v1/stream", bearer(secret), {"type": "start"})[1]
    request(port, "DELETE", "/v1/streams/0", headers=given)
    again = request(port, "POST", "/v1/streams/9", bytes(640), given).status
    held = good == STREAMS and explained and frame.get("code") == "quota" and "retry_after" in frame and again == 200
    return AttackRow(
        "tenants",
        f"streams opened of 7, {STREAMS} allowed",
        f"{STREAMS}, and one after one has ended",
        f"{good}, then {again}",
        held,
    )


def data(port: int, secret: str) -> AttackRow:
    """A body may exceed the bytes of one second; then the next one has to wait."""
    given = BYTES | bearer(secret)
    first = request(port, "POST", "/v1/streams/long", bytes(DATA * 2), given)
    second = request(port, "POST", "/v1/streams/long", bytes(640), given)
    again = second.retry_after or 0.0
    time.sleep(again)
    third = request(port, "POST", "/v1/streams/long", bytes(640), given)
    found = [first.status, second.status, third.status]
    held = found == [200, 429, 200] and 1 <= again <= 3
    return AttackRow(
        "tenants",
        f"a body of 2 s at {DATA} bytes a second, another at once, and after Retry-After",
        "200, 429, 200",
        ", ".join(map(str, found)),
        held,
    )
