"""Clients of ``/v1/stream``: they keep what the daemon has not promised to keep, so a restart is only a delay."""

from streamer.client.replay import ReplayClient, StreamError
from streamer.client.rows import RowStream, SyncRowStream
from streamer.client.sound import StreamClient

__all__ = ["ReplayClient", "RowStream", "StreamClient", "StreamError", "SyncRowStream"]
