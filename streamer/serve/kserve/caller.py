"""Who sends a request, and whether the connection of somebody else is still there."""

from __future__ import annotations

import hashlib
import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from streamer.names import SEPARATOR

__all__ = ["SECRET_HEADER", "Caller", "connected", "grpc_peer"]

#: A client that says who it is, on every request: any text that no other client knows.
SECRET_HEADER = "streamer-client"
#: TCP connections as Linux tells of them, and its number for one that is established.
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Caller:
    """``stream``: number of the gRPC stream that the request came on; 0: none. ``secret``: of the client, in plain.
    ``owner``: of the token that it came with, "": none."""

    address: str
    port: int
    stream: int = 0
    secret: str = ""
    owner: str = ""

    @property
    def scope(self) -> str:
        """What is the same on the client's next connection: its secret or else its address, with its token's owner; 32
        hexadecimal digits."""
        said = f"secret {self.secret}" if self.secret else f"address {self.address}"
        said = f"{self.owner}{SEPARATOR}{said}" if self.owner else said
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def grpc_peer(peer: str) -> tuple[str, int]:
    """Address and port out of ``ipv4:127.0.0.1:4711`` or ``ipv6:%5B::1%5D:4711``; of other sockets their name, 0."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return peer, 0
    return host.strip("[]"), int(port)


def connected(callers: Iterable[Caller], tables: Iterable[Path] = TABLES) -> set[Caller]:
    """Those whose TCP connection to this process's machine is still there, as the kernel says. Reads /proc.

    Where the kernel does not tell, all of them: rather a sequence that waits for its end than one that is taken.
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
    """Address and port out of ``0100007F:1A2B``: words of four bytes, each as the machine holds them."""
    host, _, port = written.partition(":")
    data = bytes.fromhex(host)
    words = [data[at : at + 4] for at in range(0, len(data), 4)]
    ordered = b"".join(int.from_bytes(word, "big").to_bytes(4, sys.byteorder) for word in words)
    return _plain(str(ipaddress.ip_address(ordered))), int(port, 16)


def _plain(address: str) -> str:
    """An IPv4 address that is written as IPv6 (``::ffff:127.0.0.1``) is that IPv4 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
