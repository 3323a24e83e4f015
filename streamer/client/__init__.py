"""Clients of ``/v1/stream``. They keep data until the daemon acknowledges it, so a daemon's restart is only a delay."""

from streamer.client.replay import ReplayClient, StreamError
from streamer.client.rows import RowStream, SyncRowStream
from streamer.client.sound import StreamClient

__all__ = ["ReplayClient", "RowStream", "StreamClient", "StreamError", "SyncRowStream"]
