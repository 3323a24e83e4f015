"""The limit of open files: every connection is one, and if the limit is too low, connections are not answered."""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["needed_files", "raise_file_limit"]

log = logging.getLogger(__name__)

#: Files beside connections: models, stores, logs, the libraries' own.
OTHERS = 128


def needed_files(settings: Settings) -> int:
    """Files that the daemon needs when it has every connection that the settings allow."""
    return settings.max_connections + settings.max_http_connections + OTHERS


def raise_file_limit(settings: Settings) -> int:
    """Raise the limit as far as the process may (``ulimit -n``, ``LimitNOFILE=``). Returns it, and warns if it is too
    low."""
    wanted = needed_files(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft < hard:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft < wanted:
        log.warning(
            f"{soft} files may be open here (ulimit -n), {wanted} are needed when all connections are there: raise the "
            "limit (LimitNOFILE= in the unit), or lower max_connections and max_http_connections",
            extra={"limit": soft, "needed": wanted},
        )
    return soft
