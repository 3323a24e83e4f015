"""TLS of the daemon's own ports, renewed without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["ServerTls", "TlsError"]

log = logging.getLogger(__name__)


class TlsError(ValueError):
    """A certificate or a key that can't be used. The message says which, and why."""


class _Renewable(ssl.SSLContext):
    """A context that gives every new connection the current context; open connections keep theirs."""

    current: ssl.SSLContext | None = None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        assert self.current is not None
        return self.current.wrap_bio(*arguments, **options)


class ServerTls:
    """The files of the settings ``tls_…``: read at the start, and again when :meth:`reload` finds that they have
    changed.

    ``context``: for the listening ports. ``key``, ``chain`` and ``client_ca`` (``None``: any client): PEM. Waits for
    the disk. Raises :class:`TlsError`.
    """

    def __init__(self, settings: Settings) -> None:
        self._chain, self._key = Path(settings.tls_cert_file), Path(settings.tls_key_file)
        self._client_ca = Path(settings.tls_client_ca_file) if settings.tls_client_ca_file else None
        self.key = self.chain = b""
        self.client_ca: bytes | None = None
        self.context = _Renewable(ssl.PROTOCOL_TLS_SERVER)
        self._stamps: tuple[Any, ...] = ()
        self._load()

    @classmethod
    def of(cls, settings: Settings) -> ServerTls | None:
        """The TLS of these settings; ``None``: they set none. Raises :class:`TlsError`."""
        return cls(settings) if settings.tls_cert_file else None

    def reload(self, *, always: bool = False) -> None:
        """Read the files again if one has changed, or ``always``. If they can't be used, that is logged, and the old
        ones stay."""
        if self._stamped() == self._stamps and not always:
            return
        try:
            self._load()
        except TlsError as error:
            self._stamps = self._stamped()  # complain once; the next change is tried again
            log.error("certificates not reloaded", extra={"reason": str(error)})
            return
        log.warning("certificates reloaded", extra={"file": str(self._chain)})

    def _load(self) -> None:
        stamps = self._stamped()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"tls_cert_file {self._chain} and tls_key_file {self._key}: {_why(error)}") from error
        try:
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            client_ca = None if self._client_ca is None else self._client_ca.read_bytes()
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"tls_client_ca_file {self._client_ca}: {_why(error)}") from error
        try:
            self.key, self.chain = self._key.read_bytes(), self._chain.read_bytes()
        except OSError as error:
            raise TlsError(f"{error.filename}: {_why(error)}") from error
        self.client_ca, self.context.current, self._stamps = client_ca, context, stamps

    def _stamped(self) -> tuple[Any, ...]:
        return tuple(map(_stamp, filter(None, (self._chain, self._key, self._client_ca))))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _no_password() -> str:
    """The password callback: refuses, or OpenSSL would ask for a password on the terminal."""
    raise ssl.SSLError("the key has a password: store it without")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error.args[-1]).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
