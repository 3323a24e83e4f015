"""Other machines reach it only where somebody is asked who he is, or the settings say that nobody is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from streamer.serve.access.exposure import ExposedError, check_exposure, is_local
from streamer.serve.daemon import EX_CONFIG
from streamer.settings import Settings
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import bearer, give


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone(host: str, tmp_path: Path) -> None:
    assert is_local(host)
    check_exposure(Settings(host=host, state_directory=tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "no-such-name.invalid", ""])
def test_others(host: str, tmp_path: Path) -> None:
    assert not is_local(host)
    with pytest.raises(ExposedError, match="streamer token add"):
        check_exposure(Settings(host=host, state_directory=tmp_path))


@pytest.mark.parametrize(
    ("insecure", "token", "client_ca", "said"),
    [
        (True, False, False, "every machine that reaches this address may use"),
        (False, True, False, "without TLS tokens and data can be read"),
        (True, True, False, "without TLS"),
        (False, False, True, ""),
    ],
)
def test_it_warns_of_what_is_allowed_and_not_safe(
    insecure: bool, token: bool, client_ca: bool, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if token:
        give(tmp_path, "alice")
    files = {"tls_cert_file": "c", "tls_key_file": "k", "tls_client_ca_file": "a"} if client_ca else {}
    check_exposure(Settings(host="0.0.0.0", state_directory=tmp_path, insecure=insecure, **files))
    assert (said in caplog.text) if said else not caplog.text


def test_a_daemon_that_everybody_could_use_does_not_start(tmp_path: Path, toy: Path) -> None:
    running = Running(tmp_path, toy, wait=False, host="0.0.0.0")
    try:
        assert running.process.wait(60) == EX_CONFIG
        assert "insecure = true allows it" in running.errors.read_text()
    finally:
        running.stop(signal.SIGKILL)


def test_with_a_token_it_does(tmp_path: Path, toy: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    secret = give(state, "alice", "read")
    with daemon(tmp_path, toy, host="0.0.0.0") as running:
        assert running.ask("GET", "/v1/models").status == 401
        # by any name: it is the token that counts, and no page of another origin has it
        named = {"Host": "stt.example.com"}
        assert running.ask("GET", "/v1/models", headers=named | bearer(secret)).status == 200
        assert running.ask("GET", "/readyz", headers=named).status == 403
        # emptied or deleted, the file opens nothing
        (state / "tokens.json").unlink()
        running.process.send_signal(signal.SIGHUP)
        while running.ask("GET", "/v1/models", headers=bearer(secret)).status != 401:
            pass
        assert running.ask("GET", "/v1/models").status == 401


def test_a_damaged_file_of_tokens_keeps_it_from_starting(tmp_path: Path, toy: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "tokens.json").write_text('{"version": 1, "tokens": [{"name": "a"}]}')
    running = Running(tmp_path, toy, wait=False)
    try:
        assert running.process.wait(60) == EX_CONFIG
        assert "is no file of tokens (tokens.0.owner: Field required)" in running.errors.read_text()
    finally:
        running.stop(signal.SIGKILL)
