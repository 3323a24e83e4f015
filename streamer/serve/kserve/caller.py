"""Identifies the client of a request, and finds out whether other clients' connections are still open."""

from __future__ import annotations

import hashlib
import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from streamer.names import SEPARATOR

__all__ = ["SECRET_HEADER", "Caller", "connected", "grpc_peer"]

#: Header with which a client identifies itself on every request: any text that no other client knows.
SECRET_HEADER = "streamer-client"
#: Linux's tables of TCP connections, and its state number for an established one.
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
ESTABLISHED = "01"


@dataclass(frozen=True)
class Caller:
    """The client of a request. ``stream``: number of its gRPC stream, 0 for none. ``secret``: the header's plain
    text. ``owner``: the owner of its token, "" for none."""

    address: str
    port: int
    stream: int = 0
    secret: str = ""
    owner: str = ""

    @cached_property
    def scope(self) -> str:
        """Identity that the client keeps across connections: a hash of its secret, else of its address, with its
        token's owner; 32 hexadecimal digits."""
        identity = f"secret {self.secret}" if self.secret else f"address {self.address}"
        identity = f"{self.owner}{SEPARATOR}{identity}" if self.owner else identity
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def grpc_peer(peer: str) -> tuple[str, int]:
    """Address and port from ``ipv4:127.0.0.1:4711`` or ``ipv6:%5B::1%5D:4711``; for other sockets their name and 0."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return peer, 0
    return host.strip("[]"), int(port)


def connected(callers: Iterable[Caller], tables: Iterable[Path] = TABLES) -> set[Caller]:
    """The peers whose TCP connection to this machine is still established. Reads /proc.

    Without /proc all of them: to keep a sequence too long is better than to let another client take it over.
    """
    callers = set(callers)
    alive: set[tuple[str, int]] = set()
    read = False
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        read = True
        for line in lines:
            _, _, remote, state, *_ = line.split()
            if state == ESTABLISHED:
                alive.add(_peer(remote))
    return {c for c in callers if (_plain(c.address), c.port) in alive} if read else callers


def _peer(written: str) -> tuple[str, int]:
    """Address and port from ``0100007F:1A2B``: words of four bytes in the machine's byte order."""
    host, _, port = written.partition(":")
    data = bytes.fromhex(host)
    words = [data[at : at + 4] for at in range(0, len(data), 4)]
    ordered = b"".join(int.from_bytes(word, "big").to_bytes(4, sys.byteorder) for word in words)
    return _plain(str(ipaddress.ip_address(ordered))), int(port, 16)


def _plain(address: str) -> str:
    """The IPv4 address of one that is mapped to IPv6 (``::ffff:127.0.0.1``); any other address unchanged."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
