"""systemd's readiness protocol: lines of ``KEY=value`` in one datagram to ``$NOTIFY_SOCKET``. See sd_notify(3).

Without the variable nothing is sent, so the daemon needs no systemd. A leading ``@`` is an abstract socket (a NUL byte
on the wire).
"""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["Notifier"]

log = logging.getLogger(__name__)


class Notifier:
    """The line to the service manager. Sending never raises and never blocks: a full or dead socket is logged."""

    def __init__(self, address: str | None = None, watchdog_usec: str | None = None, watchdog_pid: str | None = None):
        self._address = address
        self._socket: socket.socket | None = None
        #: Seconds between two ``WATCHDOG=1``, half of what the manager waits; ``None`` if it does not wait for any.
        self.watchdog_seconds = _interval(watchdog_usec, watchdog_pid) if address else None
        if address:
            if address[0] not in "/@":
                log.warning("NOTIFY_SOCKET is neither a path nor abstract, ignored", extra={"address": address})
                return
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls) -> Notifier:
        """Read the environment's variables and remove them, so that no child process answers for this one."""
        take = os.environ.pop
        return cls(take("NOTIFY_SOCKET", None), take("WATCHDOG_USEC", None), take("WATCHDOG_PID", None))

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop than the unit file grants."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None or self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(message.encode(), address)
        except OSError as error:
            log.warning("could not notify the service manager", extra={"error": str(error)})


def _interval(usec: str | None, pid: str | None) -> float | None:
    """Half of ``WATCHDOG_USEC``, unless ``WATCHDOG_PID`` names another process."""
    if not usec or (pid and pid != str(os.getpid())):
        return None
    try:
        return int(usec) / 2e6 if int(usec) > 0 else None
    except ValueError:
        log.warning("WATCHDOG_USEC is no number, ignored", extra={"value": usec})
        return None
