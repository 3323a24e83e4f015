"""Every setting of the daemon: one flat table with its default, its bounds and one line of help.

Values come from the command line, then the environment (``STREAMER_PORT=9000``), then one TOML file (``port = 9000``),
then the defaults below. Unknown names are refused, in the file as in the environment, because a setting that is
silently ignored would be noticed only in production. A test compares ``docs/operations.md`` and
``streamer.example.toml`` with this table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from streamer.settings_access import AccessSettings
from streamer.settings_file import SettingsError, read_toml
from streamer.settings_kserve import KServeSettings
from streamer.settings_mqtt import MqttSettings
from streamer.settings_observe import NO_OBSERVE_LIMITS, ObserveSettings
from streamer.settings_pages import PageSettings
from streamer.settings_sensors import SensorSettings
from streamer.settings_speech import NO_SPEECH_LIMITS, SpeechSettings
from streamer.spelling import nearest

__all__ = ["ENV_PREFIX", "Settings", "SettingsError", "find_config", "render"]

ENV_PREFIX = "STREAMER_"
SYSTEM_CONFIG = Path("/etc/streamer/streamer.toml")
#: Variables with the prefix that are read elsewhere: the file's path, a client's variables, the tests' data.
NOT_SETTINGS = frozenset(
    {"STREAMER_CA", "STREAMER_CONFIG", "STREAMER_CORPUS", "STREAMER_DATA", "STREAMER_TOKEN", "STREAMER_WHISPER"}
)
#: Numbers that are not bounds, or whose 0 stands for a number that is determined at start.
NO_LIMITS = frozenset(
    {
        "insecure",
        "port",
        "lanes",
        "revise_threads",
        "max_batch",
        "batch_wait_ms",
        "sensor_step",
        "mqtt_port",
        "mqtt_tls",
        "mqtt_publish",
        "kserve_grpc_port",
        "kserve_resume_by_address",
        "unsaved_streams",
        "pages",
    }
)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _state_directory() -> Path:
    """systemd's ``StateDirectory=`` if it is set, else a directory of the user (XDG base directories)."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "streamer"


class Settings(
    ObserveSettings, PageSettings, MqttSettings, KServeSettings, SpeechSettings, AccessSettings, SensorSettings
):
    """The effective settings. Sizes in bytes, times in seconds, rates in Hz."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    # -- where it listens --------------------------------------------------------------------------------------------
    host: str = Field(
        "127.0.0.1",
        description="address to listen on; one that other machines reach needs a token (streamer token add)",
    )
    port: int = Field(8765, ge=0, le=65535, description="TCP port; 0 takes a free one, see --port-file")
    max_connections: Count = Field(4096, description="WebSocket connections at a time; more are answered 503")

    # -- what it runs ------------------------------------------------------------------------------------------------
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="shipped names or paths of .onnx files, one at most for single sensors; empty: every shipped one"
        " for audio, and forecast-universal. Environment: comma-separated",
    )
    numbers: Literal["spoken", "written"] = Field(
        "spoken", description="numbers in finals: in words, or in digits; a stream may ask for the other"
    )
    text: Literal["spoken", "written"] = Field(
        "spoken", description="finals: plain words, or with punctuation and capitals; a stream may ask for the other"
    )
    revise: str = Field(
        "",
        description="Whisper model (folder or name) of the second pass, which decodes finals again; empty or off: none",
    )
    revise_language: str = Field("en", min_length=2, description="language of the finals for the second pass")
    revise_workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="finals that the second pass decodes at a time"
    )
    revise_threads: int = Field(
        0, ge=0, le=256, description="threads of the second pass, all together; 0: half of the CPUs"
    )
    revise_seconds: Positive = Field(
        10.0, description="a final that the second pass has not decoded by then stays unchanged"
    )
    max_waiting_finals: Count = Field(64, description="finals that wait for the second pass; one more stays unchanged")
    max_waiting_final_seconds: Positive = Field(300.0, description="sound of the finals that wait for the second pass")
    max_final_seconds: Annotated[float, Field(gt=0, le=28)] = Field(
        28.0, description="sound that a stream keeps for the second pass"
    )
    lanes: int = Field(0, ge=0, le=1024, description="worker threads per model; 0: one per CPU this process may use")
    capacity: Count = Field(1024, description="streams per model; a new one beyond that is refused with a retry hint")
    max_state_bytes: Count = Field(
        2 * 2**30,
        description="state of all streams of one model together; a capacity beyond that is refused at start",
    )
    max_model_bytes: Count = Field(
        4 * 2**30,
        description="memory that one model may take: its file, what is packed in it, tables of its decoder, a batch; a"
        " larger model is refused at start, or gets smaller batches",
    )
    model_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="public keys, or .pub files; a model must be signed by one of them (NAME.onnx.minisig, see streamer"
        " sign); empty: no signature is needed. Shipped models need none",
    )
    max_batch: int = Field(0, ge=0, description="largest batch; 0: where batching stops paying, as measured at start")
    batch_wait_ms: float = Field(
        -1.0,
        ge=-1,
        le=1000,
        description="longest time that a ready chunk waits for others to share its batch, at most a tenth of a chunk's"
        " time; 0: never; -1: as long as pays, as measured at start (never where max_batch is given)",
    )
    overload_seconds: Seconds = Field(
        0.0,
        description="new streams are refused while more than a few results are this late; 0: half a chunk's time"
        " (0.05 to 2 s)",
    )
    max_load: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7,
        description="share of the lanes' time that streams in real time may take, as measured; more streams are"
        " refused; 0: no bound",
    )

    # -- what one stream may take ------------------------------------------------------------------------------------
    max_frame_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        2**20, description="largest WebSocket message; a longer one closes the connection with 1009"
    )
    max_control_bytes: Annotated[int, Field(ge=256, le=2**24)] = Field(
        16 * 1024, description="largest JSON control frame"
    )
    max_request_bytes: Annotated[int, Field(ge=1024, le=2**24)] = Field(
        64 * 1024, description="largest HTTP request, headers and all; beyond that the connection is dropped"
    )
    max_requests: Count = Field(1024, description="HTTP requests at a time; more are answered 503")
    max_http_connections: Count = Field(
        4096, description="HTTP connections; one more closes the longest idle one, or is answered 503 if none is idle"
    )
    max_request_memory: Annotated[int, Field(ge=2**20)] = Field(
        512 * 2**20,
        description="bytes that the bodies of all requests (HTTP, gRPC) hold together; more are answered 503",
    )
    answer_seconds: Positive = Field(
        30.0, description="time for running the rows or readings of one request to /v1/streams or /v1/readings"
    )
    max_replay_events: Count = Field(
        256,
        description="numbered events kept for a client that comes back; the oldest go, counted if no client got them",
    )
    max_waiting_markers: Count = Field(256, description="markers of one stream that wait for audio; more are refused")
    max_unsent_events: Count = Field(
        1024, description="events waiting for a client that doesn't read, then it is detached"
    )
    max_hotwords: Annotated[int, Field(ge=0, le=2000)] = Field(
        200, description="names and terms that one stream may expect; 0: none"
    )
    max_hotword_letters: Annotated[int, Field(ge=1, le=200)] = Field(60, description="letters of one such name or term")
    max_hotword_sets: Annotated[int, Field(ge=0)] = Field(
        32, description="different lists of hotwords among the streams of one model, some 10 MB each"
    )
    max_generated_tokens: Count = Field(
        10_000_000, description="tokens of one request to /v1/generate: characters, note events, samples"
    )
    max_unread_events: Count = Field(
        64, description="events of a generator that wait for its client; meanwhile it writes nothing"
    )
    send_seconds: Positive = Field(10.0, description="time a client may leave the socket full, then it is detached")
    handshake_seconds: Positive = Field(10.0, description="time to the request, and from there to the start frame")
    linger_seconds: Positive = Field(
        2.0, description="time a closing connection is still read, so that the reason reaches a client that is sending"
    )
    keep_alive_seconds: Annotated[int, Field(ge=1)] = Field(30, description="time an idle HTTP connection is kept")
    ping_seconds: Positive = Field(20.0, description="interval of WebSocket pings, and the time a pong may take")
    buffer_seconds: Positive = Field(
        10.0, description="audio received and not yet run, per stream: the socket waits (wait) or the oldest goes (gap)"
    )
    buffer_bytes: Count = Field(
        2**20, description="rows of any other model received and not yet run, per stream; two chunks always fit"
    )
    max_replay_bytes: Count = Field(
        4 * 2**20, description="tensors and sound in the events that are kept for a client that comes back"
    )
    max_unsent_bytes: Count = Field(
        64 * 2**20, description="bytes waiting for a client that doesn't read, then it is detached"
    )

    # -- how long things live ----------------------------------------------------------------------------------------
    max_old_models: Annotated[int, Field(ge=0)] = Field(
        4,
        description="old versions of models that are kept for their streams; a reload that would exceed it is refused",
    )
    grace_seconds: Seconds = Field(60.0, description="time a stream waits for a client that went away")
    idle_seconds: Seconds = Field(
        600.0, description="time without any input before a connected stream is put to sleep; 0: never"
    )
    keep_seconds: Seconds = Field(
        86400.0,
        description="time a sleeping stream waits on the disk for its client, counted while the daemon runs",
    )
    checkpoint_seconds: Positive = Field(
        2.0, description="interval of saving changed sessions, hence of acknowledgements"
    )
    max_saved_together: Count = Field(
        16, description="streams whose snapshots are taken, held in memory and written in one go"
    )
    stuck_seconds: Positive = Field(
        10.0,
        description="time without a finished batch while work waits: then the daemon is unhealthy, and the watchdog"
        " gets no signal; a snapshot waits no longer than this either",
    )
    drain_seconds: Positive = Field(20.0, description="time for finishing what was received after SIGTERM")
    unsaved_streams: bool = Field(
        False,
        description="new streams are taken while the disk can't be written, without acknowledgements; false: they are"
        " refused until it can (store)",
    )
    min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        8 * 2**20, description="with less room in the state directory the daemon is not ready, as with a full disk"
    )
    disk_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        8,
        description="threads for connections and requests that wait for the disk; other work does not wait for it",
    )

    # -- where it writes ---------------------------------------------------------------------------------------------
    state_directory: Path = Field(
        default_factory=_state_directory,
        description="sessions.sqlite and sensors.sqlite lie here; default $STATE_DIRECTORY (systemd), "
        "else ~/.local/state/streamer",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe record that is logged"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")

    @field_validator(
        "models", "model_keys", "metrics_sensors", "mqtt_topics", "missing", "allowed_hosts", "allowed_origins",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Split ``"digits, ./other.onnx"`` from the environment."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("revise")
    @classmethod
    def _off(cls, value: str) -> str:
        return "" if value == "off" else value

    @field_validator("state_directory")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    def limits(self) -> dict[str, float]:
        """Every bound by its name, for the metrics. The effective batch and lanes are gauges of each model."""
        bounds = type(self).model_fields.keys() - NO_LIMITS - NO_SPEECH_LIMITS - NO_OBSERVE_LIMITS
        values = {name: getattr(self, name) for name in type(self).model_fields if name in bounds}
        return {name: value for name, value in values.items() if isinstance(value, (int, float))}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only load() knows the file, so it merges the sources; Settings(...) itself reads its arguments alone.
        return (init_settings,)

    @classmethod
    def load(cls, config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Settings from ``overrides`` (``None`` values are skipped), environment, file and defaults, in this order.

        Raises :class:`SettingsError` with one line for each problem.
        """
        path = find_config(config)
        from_file = read_toml(path, frozenset(cls.model_fields) - SECRETS) if path else {}
        _refuse_unknown({name: f"{name} in {path}" for name in from_file})
        _refuse_unknown(_from_environment(), prefix=ENV_PREFIX)
        environment = EnvSettingsSource(cls)()
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        try:
            return cls(**{**InitSettingsSource(cls, from_file)(), **environment, **given})
        except ValidationError as error:
            origin = {**dict.fromkeys(from_file, str(path)), **dict.fromkeys(environment, "the environment")}
            origin.update(dict.fromkeys(given, "the command line"))
            lines = [_explain(e["loc"], e["msg"], e["input"], origin) for e in error.errors()]
            raise SettingsError("\n".join(lines)) from None


#: Settings whose values are never shown, not even in errors.
SECRETS = frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def find_config(config: Path | None = None) -> Path | None:
    """The file to read: ``config``, ``$STREAMER_CONFIG``, or the system's if it exists. Raises :class:`SettingsError`
    if the first or second is set and the file does not exist."""
    named = config or (Path(os.environ["STREAMER_CONFIG"]) if os.environ.get("STREAMER_CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise SettingsError(f"no settings file {named}: give an existing one with --config or STREAMER_CONFIG")
        return named
    return SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else None


def render(settings: Settings | None = None) -> str:
    """``settings`` as TOML with the help as comments. ``None``: every setting, commented out, with its default."""
    lines = [
        "# Settings of `streamer serve`. Environment: STREAMER_<NAME> (upper case), which wins over this file.",
        "",
    ]
    own = Settings.__annotations__  # the settings of this module come first
    for name, field in sorted(Settings.model_fields.items(), key=lambda each: each[0] not in own):
        lines.append(f"# {field.description}")
        if settings is not None:
            lines += [f"{name} = {_toml(getattr(settings, name))}", ""]
        elif field.default_factory is not None:  # the default depends on the machine, as the help says
            lines += [f'#{name} = "/var/lib/streamer"', ""]
        else:
            lines += [f"#{name} = {_toml(field.default)}", ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, SecretStr):
        value = "**" if value.get_secret_value() else ""  # --print-config is pasted into reports
    if isinstance(value, (str, Path)):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _from_environment() -> dict[str, str]:
    names = (name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in NOT_SETTINGS)
    return {name.upper().removeprefix(ENV_PREFIX).lower(): f"{name} in the environment" for name in names}


def _refuse_unknown(found: Mapping[str, str], prefix: str = "") -> None:
    """Raise :class:`SettingsError` for unknown names. ``found``: setting name -> the name as the user wrote it."""
    problems = []
    for name, written in found.items():
        if name in Settings.model_fields:
            continue
        near = nearest(name, Settings.model_fields)
        shown = prefix + near.upper() if prefix else near
        problems.append(f"unknown setting {written}" + (f": did you mean {shown}?" if near else ""))
    if problems:
        raise SettingsError("\n".join(problems) + "\n(streamer serve --print-config lists every setting)")


def _explain(location: tuple[int | str, ...], message: str, value: Any, origin: Mapping[str, str]) -> str:
    if not location:  # an error of several settings together; the value holds all of them, secrets too
        return message.removeprefix("Value error, ")
    name = str(location[0])
    where = f" ({origin[name]})" if name in origin else ""
    shown = "**" if name in SECRETS else re.sub(r"[^/'\"\s]+@", "**@", repr(value))
    return f"setting {name} = {shown}{where}: {message}"
