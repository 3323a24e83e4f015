"""Settings of the MQTT broker."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

__all__ = ["MqttSettings"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class MqttSettings(BaseSettings):
    """A part of :class:`streamer.settings.Settings`."""

    mqtt_host: str = Field("", description="broker (MQTT 5) that sensors are read from; empty: none")
    mqtt_port: int = Field(1883, ge=1, le=65535, description="the broker's TCP port, with TLS mostly 8883")
    mqtt_username: str = Field("", description="empty: none")
    mqtt_password: SecretStr = Field(SecretStr(""), description="better in the environment than in a file")
    mqtt_tls: bool = Field(False, description="encrypt, and check the broker's certificate")
    mqtt_ca_file: str = Field("", description="certificates to trust; empty: the system's")
    mqtt_cert_file: str = Field("", description="the daemon's certificate (PEM) for the broker; empty: none")
    mqtt_key_file: str = Field("", description="its private key (PEM)")
    mqtt_owner: str = Field(
        "", description="owner of the broker's sensors, as in tokens; empty: clients that need no token"
    )
    mqtt_client_id: str = Field(
        "streamer", description="client id for which the broker keeps messages; each daemon needs its own"
    )
    mqtt_topics: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="what to read: 'PATTERN [time=PATH] [model=NAME] [missing=TEXT ...] [PATH ...]', such as"
        " 'sensors/+/temperature' (a number) or 'tele/+/SENSOR time=Time ENERGY.Power' (JSON); quotes around spaces",
    )
    mqtt_prefix: str = Field("streamer", description="forecasts are published to <prefix>/<sensor>, retained")
    mqtt_publish: bool = Field(True, description="publish forecasts")
    mqtt_discovery: str = Field("", description="Home Assistant's prefix, mostly homeassistant; empty: no discovery")
    mqtt_session_seconds: Count = Field(
        604800, description="time that the broker keeps messages while the daemon is away"
    )
    mqtt_max_delay: Positive = Field(60.0, description="longest wait before connecting again")
    mqtt_max_message_bytes: Count = Field(65536, description="the broker leaves out longer messages")
    mqtt_max_batch: Count = Field(1000, description="messages that are taken together")
    mqtt_max_unacknowledged: Annotated[int, Field(ge=1, le=65535)] = Field(
        1000, description="messages of QoS 1 that are not yet on the disk; at that number the broker sends no more"
    )
    mqtt_max_waiting: Count = Field(4096, description="messages that wait; at that number the daemon reads no more")
    mqtt_max_waiting_bytes: Count = Field(
        16777216, description="bytes of topics and payloads that wait; at that number the daemon reads no more"
    )
    mqtt_hold_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5.0, description="longest time without reading; then messages of QoS 0 are dropped, and counted"
    )
    mqtt_max_unsent: Count = Field(4096, description="sensors whose forecast waits; beyond that the oldest is dropped")
    mqtt_anomaly: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.001, description="a reading that is less probable than this is an anomaly for Home Assistant"
    )
    mqtt_max_curve_bytes: Annotated[int, Field(ge=1000)] = Field(
        16000, description="bytes of a curve's attributes for Home Assistant; a longer curve loses its far end"
    )
    mqtt_max_discovered: Count = Field(200, description="sensors that are announced to Home Assistant")

    @field_validator("mqtt_host")
    @classmethod
    def _no_url(cls, value: str) -> str:
        """Refuse a URL: a password in it would be in every message about the connection."""
        if "/" in value or "@" in value:
            raise ValueError("a name or an address, no URL: the rest goes into mqtt_port, mqtt_username, mqtt_password")
        return value

    @model_validator(mode="after")
    def _broker_certificate_and_key(self) -> MqttSettings:
        if bool(self.mqtt_cert_file) != bool(self.mqtt_key_file):
            raise ValueError("mqtt_cert_file and mqtt_key_file go together: give both, or none")
        if self.mqtt_cert_file and not self.mqtt_tls:
            raise ValueError("mqtt_cert_file needs mqtt_tls = true")
        return self
