"""``streamer token``, and the commands that are given one."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from streamer.serve.access.tokens import PREFIX, digest
from tests.cli.command import STREAMER, environment, events, one_line, streamer
from tests.daemon.certificates import Authority
from tests.daemon.running import daemon


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.mark.long
def test_a_token_is_shown_once_and_kept_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "state" / "tokens.json"
    (secret,) = lines(streamer("token", "add", "alice", "--file", file))
    assert secret.startswith(PREFIX)
    assert len(secret) > 40
    assert secret not in file.read_text()
    assert digest(secret) in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    limits = ("--max-streams", "3", "--requests-per-second", "1.5", "--bytes-per-second", "1000000")
    lines(
        streamer("token", "add", "bob", "--scope", "read", "--scope", "write", "--owner", "p", *limits, "--file", file)
    )
    shown = lines(streamer("token", "list", "--file", file))
    assert shown[0].startswith("alice: stream; made 2")
    assert shown[1].startswith(
        "bob of p: read, write; at most 3 streams, 1.5 requests a second, 1000000 bytes a second; made"
    )
    found = json.loads(streamer("token", "list", "--json", "--file", file).stdout)
    assert [(each["name"], each["owner"], each["scopes"]) for each in found] == [
        ("alice", "alice", ["stream"]),
        ("bob", "p", ["read", "write"]),
    ]
    assert "sha256" not in found[0]
    done = streamer("token", "remove", "alice", "--file", file)
    assert one_line(done.stderr) == "streamer: removed alice"
    assert [each.split(" ")[0] for each in lines(streamer("token", "list", "--file", file))] == ["bob"]
    assert "no client is admitted" in streamer("token", "remove", "bob", "--file", file).stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "alice"), "there is a token 'alice' already"),
        (("add", "x", "--scope", "all"), "scopes: Input should be 'stream', 'read', 'write' or 'admin'"),
        (("add", "x\ny"), "name: Value error, 'x\\ny' is not a name"),
        (("add", "y" * 65), "name: "),
        (("remove", "nobody"), "no token is named 'nobody': alice"),
    ],
)
def test_what_can_not_be_done_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    file = tmp_path / "tokens.json"
    lines(streamer("token", "add", "alice", "--file", file))
    before = file.read_text()
    done = streamer("token", *arguments, "--file", file)
    assert said in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert file.read_text() == before


def test_a_damaged_file_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.write_text("{")
    for arguments in (("add", "alice"), ("list",), ("remove", "alice")):
        done = streamer("token", *arguments, "--file", file)
        assert "is no file of tokens" in one_line(done.stderr)
        assert done.returncode == 2
    assert file.read_text() == "{"


def test_many_at_once_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    adding = [
        subprocess.Popen([*STREAMER, "token", "add", f"t{number}", "--file", str(file)], stderr=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, env=environment())
        for number in range(4)
    ]  # fmt: skip
    assert [process.wait(120) for process in adding] == [0] * 4
    assert len(lines(streamer("token", "list", "--file", file))) == 4


@pytest.mark.long
def test_a_command_uses_it_over_tls(tmp_path: Path, toy: Path, recording: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("server")
    file = tmp_path / "state" / "tokens.json"
    (secret,) = lines(streamer("token", "add", "alice", "--file", file))
    with daemon(tmp_path, toy, tls_cert_file=certificate, tls_key_file=key) as running:
        command = ("transcribe", "--json", "--model", "toy", "--url", f"wss://localhost:{running.port}")
        local = streamer("transcribe", "--json", "--model", toy, recording)
        given = streamer(*command, "--token", secret, "--ca", authority.pem, recording)
        assert (given.stderr, given.returncode) == (b"", 0)
        assert events(given.stdout) == events(local.stdout)
        without = streamer(*command, "--ca", authority.pem, recording)
        assert "401: a token is needed" in one_line(without.stderr)
        assert without.returncode == 1
        user = [part.replace("localhost", "user:verysecret@localhost") for part in command]
        wrong = streamer(*user, "--ca", authority.pem, recording)
        assert "401" in one_line(wrong.stderr)
        assert "verysecret" not in wrong.stderr.decode()
        missing = streamer(*command, "--token", secret, "--ca", tmp_path / "none.pem", recording)
        assert "there is no such file" in one_line(missing.stderr)
        assert missing.returncode == 2
