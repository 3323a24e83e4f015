"""Announces Wyoming in the local network (mDNS): Home Assistant finds services of ``_wyoming._tcp``."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

from streamer.serve.ports import MissingExtraError

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

    from streamer.settings import Settings

__all__ = ["Announcement"]

log = logging.getLogger(__name__)

KIND = "_wyoming._tcp.local."
#: The address of mDNS. Nothing is sent to it: it only shows which of our addresses leads to the network.
GROUP = ("224.0.0.251", 1)


class Announcement:
    """Does nothing if ``wyoming_zeroconf`` is empty."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._zeroconf: AsyncZeroconf | None = None

    @property
    def wanted(self) -> bool:
        return bool(self._settings.wyoming_port and self._settings.wyoming_zeroconf)

    def check(self) -> None:
        """Raises :class:`MissingExtraError`."""
        if not self.wanted:
            return
        try:
            import zeroconf.asyncio  # noqa: F401
        except ImportError as error:
            text = "wyoming_zeroconf is set, and zeroconf is missing: pip install 'streamer[wyoming]'"
            raise MissingExtraError(text) from error

    async def start(self) -> None:
        """Announce the port. If the network takes no announcements, that is only logged."""
        if not self.wanted:
            return
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

        name, port = self._settings.wyoming_zeroconf, self._settings.wyoming_port
        try:
            address = _address(self._settings.host)
            self._zeroconf = AsyncZeroconf(interfaces=[str(address)])
            service = AsyncServiceInfo(KIND, f"{name}.{KIND}", addresses=[address.packed], port=port)
            await self._zeroconf.async_register_service(service, allow_name_change=True)
        except (OSError, Error, ValueError) as error:
            log.warning("the port of Wyoming is not announced", extra={"reason": str(error) or type(error).__name__})
            return
        log.info("announced", extra={"service": service.name, "address": str(address), "port": port})

    async def stop(self) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None


def _address(host: str) -> ipaddress.IPv4Address:
    """The address by which other machines reach us. Raises ``OSError``."""
    found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    address = ipaddress.IPv4Address(found)
    if not address.is_unspecified:
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(GROUP)
        return ipaddress.IPv4Address(probe.getsockname()[0])
