"""Settings of KServe v2: a part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

__all__ = ["KServeSettings"]

Count = Annotated[int, Field(ge=1)]


class KServeSettings(BaseSettings):
    """KServe v2 over HTTP and gRPC."""

    kserve_grpc_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="TCP port of KServe v2 over gRPC, Triton's is 8001; 0: none. Over HTTP it is on port",
    )
    kserve_resume_by_address: bool = Field(
        True,
        description="a sequence whose connection broke goes on for clients at its address; false: only with the header"
        " streamer-client",
    )
    kserve_max_requests: Count = Field(
        1024, description="inference requests under way; one more is answered 503 (UNAVAILABLE)"
    )
    kserve_max_pipelined: Count = Field(
        64, description="requests of one gRPC stream under way; at that number no more is read from its client"
    )
    kserve_max_calls: Count = Field(
        256, description="gRPC calls at a time, streams among them; one more is answered RESOURCE_EXHAUSTED, unread"
    )
    kserve_max_message_bytes: Count = Field(
        4 * 2**20,
        description="largest gRPC message, and never more than max_body_bytes; each call may hold one that is still"
        " arriving, which max_request_memory does not count yet",
    )
    kserve_max_backlog: Annotated[int, Field(ge=0)] = Field(
        64, description="requests with a timeout that wait for a free slot; one more is answered 503 (UNAVAILABLE)"
    )
