"""Whose sequence is whose, without a server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streamer.serve.kserve.caller import Caller, connected, grpc_peer
from streamer.serve.kserve.lasting import Positions, lasting_secret
from streamer.serve.kserve.sequences import SequenceTable, SeveralLeftError

HERE = Caller("10.0.0.1", 5000)
AGAIN = Caller("10.0.0.1", 5001)
AWAY = Caller("10.0.0.2", 5000)


def table(max_gone: int = 10) -> SequenceTable[str]:
    return SequenceTable(b"secret", max_gone)


def entered(owners: SequenceTable[str], caller: Caller, id: int | str = 42, model: str = "m") -> str:
    owned = owners.enter(model, id, caller)
    owned.sequence = owned.key
    return owned.key


def test_one_id_of_two_clients_is_two_sequences() -> None:
    owners = table()
    keys = {entered(owners, caller) for caller in (HERE, AGAIN, AWAY)}
    assert len(keys) == 3
    for caller in (HERE, AGAIN, AWAY):
        owned = owners.own("m", 42, caller)
        assert owned is not None
        assert owned.caller == caller
    assert owners.own("m", 42, Caller("10.0.0.1", 5002)) is None
    assert owners.own("n", 42, HERE) is None
    assert owners.own("m", "42", HERE) is None


def test_a_secret_is_the_same_client_on_every_connection_and_no_other() -> None:
    owners = table()
    mine = Caller("10.0.0.1", 5000, secret="s")
    key = entered(owners, mine)
    elsewhere = owners.own("m", 42, Caller("192.168.0.9", 1, stream=3, secret="s"))
    assert elsewhere is not None
    assert elsewhere.key == key
    assert owners.own("m", 42, HERE) is None
    assert owners.others("m", 42, HERE) == []
    assert owners.own("m", 42, Caller("10.0.0.1", 5000, secret="t")) is None


def test_streams_of_one_connection_are_clients_of_their_own() -> None:
    owners = table()
    entered(owners, Caller("10.0.0.1", 5000, stream=1))
    assert owners.own("m", 42, Caller("10.0.0.1", 5000, stream=2)) is None
    assert owners.own("m", 42, HERE) is None
    entered(owners, HERE, 7)
    assert owners.own("m", 7, Caller("10.0.0.1", 5000, stream=2)) is not None  # of the connection that it is on


def test_what_a_broken_connection_left_goes_on_for_its_address_alone() -> None:
    owners = table()
    key = entered(owners, HERE)
    assert owners.take_over("m", 42, AGAIN, {AWAY}) is None  # its connection is not known to be dead
    assert owners.take_over("m", 42, AWAY, {HERE}) is None
    owned = owners.take_over("m", 42, AGAIN, {HERE})
    assert owned is not None
    assert owned.key == key
    assert owners.own("m", 42, HERE) is None
    assert owners.own("m", 42, AGAIN) is owned


def test_two_that_are_left_are_not_guessed_at() -> None:
    owners = table()
    entered(owners, HERE)
    entered(owners, AGAIN)
    with pytest.raises(SeveralLeftError):
        owners.take_over("m", 42, Caller("10.0.0.1", 5002), {HERE, AGAIN})


def test_keys_are_names_that_nobody_can_tell_and_the_same_after_a_restart() -> None:
    first, second = table(), table()
    assert entered(first, HERE) == entered(second, AGAIN)  # of the same address
    assert len(first.key("m" * 64, "ü\udc80" * 64, HERE)) <= 200
    assert first.key("m", 42, HERE).isprintable()
    other: SequenceTable[str] = SequenceTable(b"another")
    assert entered(other, HERE) != entered(table(), HERE)


def test_who_is_gone_is_told_and_those_are_bounded() -> None:
    owners = table(max_gone=2)
    for id in (1, 2, 3):
        entered(owners, HERE, id)
        owned = owners.own("m", id, HERE)
        assert owned is not None
        owners.lose(owned, f"gone {id}")
    assert owners.own("m", 1, HERE) is None  # forgotten, the oldest
    gone = owners.own("m", 3, HERE)
    assert gone is not None
    assert (gone.sequence, gone.gone) == (None, "gone 3")


def test_peers_of_grpc() -> None:
    assert grpc_peer("ipv4:127.0.0.1:4711") == ("127.0.0.1", 4711)
    assert grpc_peer("ipv6:%5B::1%5D:4711") == ("::1", 4711)
    assert grpc_peer("unix:/run/x") == ("unix:/run/x", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_says_which_connections_are_there(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} here")
    with listener:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with accepted:
            mine = Caller(host, client.getsockname()[1])
            other = Caller("192.0.2.1", 5)
            assert connected([mine, other]) == {mine}
            client.close()
            accepted.recv(1)  # the kernel has heard of it
            assert connected([mine, other]) == set()


def test_where_the_kernel_does_not_tell_nothing_is_taken(tmp_path: Path) -> None:
    assert connected([HERE], [tmp_path / "none"]) == {HERE}


def test_an_address_of_four_bytes_in_sixteen_is_the_same(tmp_path: Path) -> None:
    page = tmp_path / "tcp6"
    remote = "0000000000000000FFFF00000100000A:1388"
    page.write_text(f"  sl  local_address rem_address st\n   0: {remote} {remote} 01 00\n")
    assert connected([HERE, AGAIN], [page]) == {HERE}


def test_positions_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "kserve.json"
    assert Positions(path).take("a") is None
    Positions(path).save({"a": 3, "b": 4})
    after = Positions(path)
    assert not path.exists()  # after a crash nobody may rely on it
    assert after.take("a") == 3
    assert after.take("a") is None
    after.save({"c": 5})
    last = Positions(path)
    assert [last.take(key) for key in "abc"] == [None, 4, 5]


def test_damaged_positions_are_none(tmp_path: Path) -> None:
    path = tmp_path / "kserve.json"
    for text in ("{", "[]", '{"a": []}', "7"):
        path.write_text(text)
        assert Positions(path).take("a") is None
        assert not path.exists()


def test_the_secret_lasts_and_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "state" / "kserve.secret"
    first = lasting_secret(path)
    assert len(first) == 32
    assert lasting_secret(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    assert lasting_secret(path) != first
