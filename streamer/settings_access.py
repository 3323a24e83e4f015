"""Settings of access control: hosts, origins, tokens, certificates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, NoDecode

__all__ = ["AccessSettings"]


class AccessSettings(BaseSettings):
    """A part of :class:`streamer.settings.Settings`."""

    insecure: bool = Field(
        False,
        description="listen where other machines reach it, without tokens and certificates",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="host names that requests may use for this daemon besides localhost, host and IP addresses, such as"
        " stt.example.com or *.example.com; *: any",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="web pages that may use this daemon besides its own, such as https://app.example.com; *: any",
    )
    token_file: str = Field(
        "", description="tokens, by their hashes (streamer token); empty: tokens.json in the state directory"
    )
    max_failed_tokens: Annotated[int, Field(ge=1)] = Field(
        10, description="wrong tokens from one address; an address that sends more is answered 429, and waits"
    )
    failed_token_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10.0, description="time after which one wrong token is forgiven"
    )
    max_failed_addresses: Annotated[int, Field(ge=1)] = Field(
        4096, description="addresses whose wrong tokens are counted; beyond that the oldest is forgotten"
    )
    tls_cert_file: str = Field(
        "",
        description="certificate and its chain (PEM), for HTTPS, WSS and gRPC; empty: none. Read again when it changes",
    )
    tls_key_file: str = Field("", description="its private key (PEM)")
    tls_client_ca_file: str = Field(
        "",
        description="authorities (PEM) of client certificates: a client without one is not served; empty: any client",
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> AccessSettings:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file go together: give both, or none")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        return self
