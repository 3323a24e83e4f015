"""Whether other machines can reach the daemon, and whether anybody asks who they are then."""

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
    """Only this machine reaches it: every address of ``host`` is a loopback one."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False  # whoever binds to it says what is wrong
    return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def check_exposure(settings: Settings) -> None:
    """Raises :class:`ExposedError` for an address that others reach where nobody is asked for a token or a certificate;
    warns of what is allowed and not safe."""
    if is_local(settings.host):
        return
    asked = token_path(settings).exists() or bool(settings.tls_client_ca_file)
    if not asked and not settings.insecure:
        raise ExposedError(
            f"host {settings.host} can be reached from other machines, and nobody would be asked who he is: make a"
            " token (streamer token add NAME), or set tls_client_ca_file; insecure = true does without"
        )
    extra = {"host": settings.host}
    if not asked:
        log.warning("insecure: whoever reaches this address may use, read and delete everything", extra=extra)
    elif not settings.tls_cert_file:
        log.warning(
            "without TLS tokens and data can be read on the way: set tls_cert_file and tls_key_file", extra=extra
        )
