"""Rate limits: a token bucket, and a count of wrong tokens by address."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Allowance", "Guesses"]


class Allowance:
    """A token bucket: ``rate`` a second, up to ``burst`` saved while nothing comes. For the event loop.

    Anything may be taken as long as one unit is left; the rest becomes a debt, since a body's length is known only when
    it is read.
    """

    __slots__ = ("_at", "_burst", "_clock", "_left", "rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self.rate, self._burst, self._clock = rate, max(1.0, burst), clock
        self._left, self._at = self._burst, clock()

    def wait(self) -> float:
        """Seconds until something may come; 0: now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._left > 1 - 1e-6 else (1 - self._left) / self.rate

    def take(self, count: float) -> float:
        """Take ``count`` units; the seconds until the next may come."""
        self.wait()
        self._left -= count
        return self.wait()


class Guesses:
    """Wrong tokens by the address that they came from. For the event loop.

    An address may send ``most`` wrong tokens, and one more after each ``seconds``. Beyond that its tokens are not
    checked, so that a guesser does not learn whether a guess was right. Tokens that were right before from this address
    are still accepted, so that other clients of the address are not shut out. ``addresses``: most that are remembered;
    beyond that the oldest is forgotten.
    """

    def __init__(self, most: int, seconds: float, addresses: int, clock: Callable[[], float]) -> None:
        self._most, self._seconds, self._addresses, self._clock = most, seconds, addresses, clock
        self._wrong: OrderedDict[str, Allowance] = OrderedDict()
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, address: str, digest: str) -> float:
        """Seconds until a token from this address is checked; 0: now."""
        place = _network(address)
        allowance = self._wrong.get(place)
        if allowance is None or (place, digest) in self._right:
            return 0.0
        return allowance.wait()

    def was_wrong(self, address: str) -> None:
        place = _network(address)
        allowance = self._wrong.get(place)
        if allowance is None:
            allowance = self._wrong[place] = Allowance(1 / self._seconds, self._most, self._clock)
            if len(self._wrong) > self._addresses:
                self._wrong.popitem(last=False)
        self._wrong.move_to_end(place)
        allowance.take(1)

    def was_right(self, address: str, digest: str) -> None:
        place = _network(address), digest
        self._right[place] = None
        self._right.move_to_end(place)
        if len(self._right) > self._addresses:
            self._right.popitem(last=False)


def _network(address: str) -> str:
    """The address, or the /64 network of an IPv6 address: a client with one such address has 2^64 of them."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 6:
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
