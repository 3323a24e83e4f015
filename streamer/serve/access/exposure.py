"""Whether other machines can reach the daemon, and whether they then need a token or a certificate."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

from streamer.serve.access.tokens import token_path

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["ExposedError", "check_exposure", "is_local"]

log = logging.getLogger(__name__)


class ExposedError(ValueError):
    """Everybody on the network could use the daemon. The message says what to do."""


def is_local(host: str) -> bool:
    """Whether only this machine reaches ``host``: all its addresses are loopback addresses."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False  # binding to the host reports the error
    return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def check_exposure(settings: Settings) -> None:
    """Raises :class:`ExposedError` if other machines reach the address and need neither a token nor a certificate;
    warns of settings that are allowed but not safe."""
    if is_local(settings.host):
        return
    asked = token_path(settings).exists() or bool(settings.tls_client_ca_file)
    if not asked and not settings.insecure:
        raise ExposedError(
            f"host {settings.host} can be reached from other machines, and they would need no token and no certificate:"
            " make a token (streamer token add NAME), or set tls_client_ca_file; insecure = true allows it"
        )
    extra = {"host": settings.host}
    if not asked:
        log.warning(
            "insecure: every machine that reaches this address may use, read and delete everything", extra=extra
        )
    elif not settings.tls_cert_file:
        log.warning(
            "without TLS tokens and data can be read on the way: set tls_cert_file and tls_key_file", extra=extra
        )
