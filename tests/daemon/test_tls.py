"""TLS of the daemon's ports: renewed while it runs, for clients with a certificate alone, and what can't be used."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
from pathlib import Path

import pytest

from streamer.client import StreamError, SyncRowStream
from streamer.commands.backends import CommandError, Remote
from streamer.serve.daemon import EX_CONFIG
from streamer.serve.moving.peer import Peer, PeerError
from tests.cli.command import one_line, streamer
from tests.daemon.certificates import Authority
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import bearer, give, until
from tests.serve.kserve.clients import free_port
from tests.serve.kserve.plant import plant

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def serial(running: Running, trusted: ssl.SSLContext, port: int | None = None) -> str:
    """Of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port or running.port), 20) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        found = secured.getpeercert()
        assert found
        return str(found["serialNumber"])


def get(running: Running, trusted: ssl.SSLContext, path: str = "/readyz", **headers: str) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=20, context=trusted)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.mark.long
def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("server")
    trusted = ssl.create_default_context(cafile=authority.pem)
    state = tmp_path / "state"
    state.mkdir()
    secret = give(state, "alice", "stream", "read")
    files = {"tls_cert_file": certificate, "tls_key_file": key}
    port = free_port()
    with daemon(tmp_path, plant(tmp_path), kserve_grpc_port=port, **files) as running:
        url = running.url.replace("ws://", "wss://")
        with SyncRowStream(url, model="plant", key="k", token=secret, ca=authority.pem) as stream:
            assert stream.step(ROWS)
            before = serial(running, trusted)
            assert serial(running, trusted, port) == before
            authority.issue("server")
            until(lambda: serial(running, trusted) != before)
            until(lambda: serial(running, trusted, port) == serial(running, trusted))
            assert stream.step(ROWS)  # the connection that was there goes on

            certificate.write_text("nonsense")  # half a renewal: the old one stays
            running.process.send_signal(signal.SIGHUP)
            until(lambda: "certificates not reloaded" in running.errors.read_text())
            assert get(running, trusted, "/v1/models", **bearer(secret)) == 200
        with pytest.raises(StreamError), SyncRowStream(url, model="plant", token=secret, retry_seconds=0):
            pass  # of an authority that the system does not know
        with (
            pytest.raises(StreamError, match=r"unreachable.*if the daemon has TLS, use wss://"),
            SyncRowStream(running.url, model="plant", token=secret, retry_seconds=0),
        ):
            pass
        with pytest.raises((http.client.HTTPException, OSError)):
            running.get("/readyz")
        assert running.stop() == 0


def test_only_clients_with_a_certificate(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "certificates"), Authority(tmp_path / "other", "stranger")
    certificate, key = authority.issue("server")
    files = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority.pem}
    with daemon(tmp_path, plant(tmp_path), **files) as running:
        known = ssl.create_default_context(cafile=authority.pem)
        known.load_cert_chain(*authority.issue("client"))
        assert get(running, known, "/v1/models") == 200
        stranger = ssl.create_default_context(cafile=authority.pem)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            get(running, stranger)
        stranger.load_cert_chain(*other.issue("client"))
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            get(running, stranger)
        assert get(running, known) == 200


def test_clients_trust_whom_the_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("server")
    with daemon(tmp_path, plant(tmp_path), tls_cert_file=certificate, tls_key_file=key) as running:
        url = running.url.replace("ws://", "wss://")
        with pytest.raises(StreamError, match=r"is not trusted .*--ca"), SyncRowStream(url, model="plant"):
            pass
        with pytest.raises(PeerError, match=r"is not trusted .*--ca"):
            Peer(url.removesuffix("/v1/stream")).ask("GET", "/v1/models")
        with (
            pytest.raises(StreamError, match=r"can't be used .*PEM"),
            SyncRowStream(url, model="plant", ca=tmp_path / "nothing.pem"),
        ):
            pass
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
        with SyncRowStream(url, model="plant") as stream:
            assert stream.step(ROWS)
        assert b"plant" in Peer(url.removesuffix("/v1/stream")).ask("GET", "/v1/models")


def test_a_daemon_without_tls_is_named_in_one_line(tmp_path: Path) -> None:
    with daemon(tmp_path, plant(tmp_path)) as running:
        url = running.url.replace("ws://", "wss://")
        with pytest.raises(StreamError, match="answers without TLS: use ws://"), SyncRowStream(url, model="plant"):
            pass
        with pytest.raises(PeerError, match="answers without TLS: use http://"):
            Peer(url.removesuffix("/v1/stream")).ask("GET", "/v1/models")
        done = streamer("transcribe", "--url", url, "-", stdin=bytes(3200))
        assert "answers without TLS: use ws://" in one_line(done.stderr)
        assert done.returncode == 1


@pytest.mark.parametrize("broken", ["key", "cert", "missing", "ca"])
def test_what_can_not_be_used_is_said_at_the_start(tmp_path: Path, toy: Path, broken: str) -> None:
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("server")
    files = {"tls_cert_file": certificate, "tls_key_file": key}
    if broken == "key":
        files["tls_key_file"] = authority.issue("another")[1]
    elif broken == "cert":
        certificate.write_text("nonsense")
    elif broken == "missing":
        key.unlink()
    else:
        files["tls_client_ca_file"] = tmp_path / "nothing.pem"
    running = Running(tmp_path, toy, wait=False, **files)
    try:
        assert running.process.wait(60) == EX_CONFIG
        line = running.errors.read_text()
        assert "tls_" in line
        assert "Traceback" not in line
    finally:
        running.stop(signal.SIGKILL)


def test_a_command_says_which_file_is_missing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(CommandError, match="there is no such file"):
        Remote(f"wss://127.0.0.1:{server.getsockname()[1]}", None, {}, ca=tmp_path / "nothing.pem")
