"""Every parser of the daemon by name, with its samples and its own errors.

A parser takes bytes and either reads them or raises one of its own errors; any other exception is a crash. ``samples``
are valid inputs, which the fuzzer damages.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamer.contract.manifest import Manifest, ManifestError
from streamer.refusals import BadInput
from streamer.sensors.layout import RowLayout
from streamer.serve.access.gate import Access
from streamer.serve.access.grant import Denied
from streamer.serve.access.tokens import Token, TokenFile, TokenFileError
from streamer.serve.body import unzip
from streamer.serve.frames import Cutter
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_codec import parse as parse_infer
from streamer.serve.readings import line_protocol, otlp, remote_write
from streamer.serve.readings.parsed import BodyError, read_batch
from streamer.serve.rows.routes import HttpProblem, RowBody
from streamer.serve.stream.protocol import WireError, parse_control
from streamer.settings import Settings, SettingsError
from streamer.sources import SourceError
from streamer.sources.mqtt_topics import MalformedError, Subscription
from streamer.sources.readings import Columns, Readings
from streamer.streams.rows import RowReader
from streamer.streams.snapshot import Snapshot, SnapshotError
from tests.contract.several import several
from tests.serve.kserve.plant import plant
from tests.serve.senders import request_v1, request_v2, snappy

__all__ = ["Parser", "parsers"]

TIME = 1_700_000_000
SINGLE = RowLayout(4, ("0.05", "0.5", "0.95"), (0.05, 0.5, 0.95))


class Parser(NamedTuple):
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    samples: tuple[bytes, ...]


def parsers(folder: Path) -> dict[str, Parser]:
    """All parsers, by name. ``folder``: for files that a parser reads."""
    return {
        "WebSocket frames": Parser(_frames, (), FRAMES),
        "control frames": Parser(
            lambda data: parse_control(data, 4096),
            (WireError,),
            (
                b'{"type":"start","model":"m","sample_rate":16000,"key":"k","seq":3,"options":{"hotwords":["a"]}}',
                b'{"type":"resume","stream":"s","seq":7}',
                b'{"type":"rows","inputs":{"x":[[1.0,null],[3]],"y":[1]}}',
                b'{"type":"marker","id":"m"}',
            ),
        ),
        "rows": _rows(folder),
        "packed bodies": Parser(
            lambda data: [unzip(data, kind, 2**20) for kind in ("gzip", "deflate")],
            (BodyError,),
            (gzip.compress(b"a,b\n" * 99),),
        ),
        "tables": Parser(_table, (SourceError, BodyError), TABLES),
        "line protocol": Parser(
            lambda data: line_protocol.parse(data, 1e-9),
            (BodyError,),
            (b'cpu,host=a\\ b,x="y" load=0.5,n=3i,u=4u,ok=t,s="te\\"xt" 1700000000000000000\n# c\nm v=1\n',),
        ),
        "remote write 1.0": _remote("", request_v1),
        "remote write 2.0": _remote(";proto=io.prometheus.write.v2.Request", request_v2),
        "OTLP": Parser(
            lambda data: [otlp.parse(data, kind) for kind in ("application/json", "application/x-protobuf")],
            (BodyError,),
            (OTLP, b"\n\x10\n\x00\x12\x0c\n\x00\x12\x08\n\x01mZ\x03\n\x01\x00"),
        ),
        "KServe": Parser(
            lambda data: [parse_infer(data, length) for length in (None, len(data) // 2, 0)],
            (KServeError,),
            (KSERVE, KSERVE.replace(b'"data":[1,2,3,4,5,6]', b'"parameters":{"binary_data_size":24}') + bytes(24)),
        ),
        "KServe over gRPC": _grpc(),
        "snapshots": _snapshots(),
        "manifests": Parser(
            lambda data: Manifest.from_json(data.decode("utf-8", "surrogateescape")),
            (ManifestError,),
            _manifests(folder),
        ),
        "settings": Parser(lambda data: _settings(folder, data), (SettingsError,), (SETTINGS,)),
        "tokens": Parser(lambda data: _tokens(folder, data), (TokenFileError,), (_token_file(folder),)),
        "MQTT topics": Parser(
            lambda data: Subscription.parse(data.decode("utf-8", "surrogateescape")),
            (ValueError,),
            (b'tele/+/SENSOR time=Time missing=-127 ENERGY.Power "air temp"', b"a/#", b"plants/+ model=plant time=ts"),
        ),
        "MQTT payloads": Parser(_payload, (MalformedError,), PAYLOADS),
        "hosts, origins, tokens": _door(folder),
    }


# -- calls -------------------------------------------------------------------------------------------------------------

FRAMES = (b"\x82\x83abcdxyz", b"\x81\xfe\x00\x80abcd" + bytes(128), b"\x89\x80abcd")
PAYLOADS = (b'{"Time":"2024-01-01T00:00:00","ENERGY":{"Power":3.5}}', b"21.5")
TABLES = (
    b"time,pump,value\n2024-01-01 00:00,a,1.5\n2024-01-01 00:01,b,\n",
    b"Zeit;Wert\n01.02.2024 10:00;3,5\n02.02.2024 10:00;NaN\n",
    b'{"id":"a","time":1700000000,"value":1.5}\n{"id":"a","time":1700000001,"value":null}\n',
    b'[{"metric":{"__name__":"up","job":"x"},"values":[[1700000000,"1"]]}]',
    b"sensors/a 1.5\nsensors/b nan\n",
)
OTLP = json.dumps(
    {
        "resourceMetrics": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
                "scopeMetrics": [
                    {
                        "metrics": [
                            {"name": "m", "gauge": {"dataPoints": [{"timeUnixNano": f"{TIME}000", "asDouble": 1}]}}
                        ]
                    }
                ],
            }
        ]
    }
).encode()
KSERVE = json.dumps(
    {
        "id": "1",
        "parameters": {"sequence_id": 42, "sequence_start": True, "timeout": 1000},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    },
    separators=(",", ":"),
).encode()
SETTINGS = b'port = 8765\nmodels = ["digits", "a.onnx"]\nmqtt_password = "x"\nbuffer_seconds = 3.5\nmqtt_tls = true\n'


def _frames(data: bytes) -> None:
    """For any split of the bytes, the frames are exactly these bytes."""
    for step in (len(data) or 1, 1, 7):
        cutter, found = Cutter(1024), []
        for at in range(0, len(data), step):
            found += [frame for frame, _ in cutter.cut(data[at : at + step])]
        assert data.startswith(b"".join(found))
        assert len(data) - sum(map(len, found)) <= 1024 + 14


def _rows(folder: Path) -> Parser:
    readers = [RowReader(_manifest(path)) for path in (plant(folder), several(folder))]

    def read(data: bytes) -> None:
        refused = 0
        for reader in readers:
            for kind in ("", "application/x-ndjson", "application/octet-stream"):
                try:
                    RowBody.parse(data, kind, reader)
                except (HttpProblem, BadInput):
                    refused += 1
        if refused == 6:
            raise BadInput("by all of them")

    samples = (
        b"[[1,2,3],[4,5,6]]",
        b'{"values":[[1,2,null]],"options":{}}',
        b'{"inputs":{"x":[[1,2,3]],"y":[1]}}',
        bytes(24),
    )
    return Parser(read, (BadInput,), samples)  # fmt: skip


def _manifest(path: Path) -> Manifest:
    from streamer.engine.model import Model

    return Model.load(path).manifest


def _manifests(folder: Path) -> tuple[bytes, ...]:
    return tuple(_manifest(path).to_json().encode() for path in (plant(folder), several(folder)))


def _table(data: bytes) -> None:
    source = Readings("body", Columns(), lambda said: None, data)
    read_batch(source, SINGLE, "single")


def _remote(kind: str, make: Callable[..., bytes]) -> Parser:
    headers = {"content-type": f"application/x-protobuf{kind}", "content-encoding": "snappy"}
    parse = remote_write.negotiate(headers)
    body = make(({"__name__": "up", "job": "x", "instance": "y"}, [(1.0, TIME * 1000), (2.0, TIME * 1000 + 1)]))

    def read(data: bytes) -> None:
        for packed in (data, snappy(data)):
            try:
                parse(packed, 2**20)
            except BodyError:
                continue

    return Parser(read, (BodyError,), (body, snappy(body)))


def _grpc() -> Parser:
    from google.protobuf.message import DecodeError

    from streamer.serve.kserve.grpc_codec import parse
    from streamer.serve.kserve.grpc_messages import MESSAGES

    message = MESSAGES["ModelInferRequest"]()
    message.model_name = b"plant"
    tensor = message.inputs.add()
    tensor.name, tensor.datatype = b"x", b"FP32"
    tensor.shape.extend([1, 2, 3])
    message.raw_input_contents.append(struct.pack("<6f", *range(6)))
    pair = message.parameters.add()
    pair.key, pair.value.int64_param = b"sequence_id", 42
    return Parser(
        lambda data: parse(MESSAGES["ModelInferRequest"].FromString(data)),
        (KServeError, DecodeError),
        (message.SerializeToString(),),
    )


def _snapshots() -> Parser:
    whole = Snapshot(
        *("s", "m", "d" * 64, 8000, "wait", {"a": 1}, 10, 8, 0, 3, -1, 0, False),
        markers=[("m", 3, 4)],
        events=[{"type": "final", "seq": 1, "text": "x"}],
        memory=b"abc",
        pending=np.arange(4, dtype=np.int16),
        states={"h": np.ones((2, 3), np.float32)},
    ).to_bytes()

    def read(data: bytes) -> None:
        import zlib

        try:
            Snapshot.from_bytes(data)
        except SnapshotError:  # of the checksum: parse again with a valid one
            Snapshot.from_bytes(b"STS1" + zlib.crc32(data[8:]).to_bytes(4, "little") + data[8:])

    return Parser(read, (SnapshotError,), (whole,))


def _settings(folder: Path, data: bytes) -> None:
    file = folder / "settings.toml"
    file.write_bytes(data)
    Settings.load(file)


def _token_file(folder: Path) -> bytes:
    token = Token(name="a", owner="b", sha256="0" * 64, scopes=frozenset(["stream"]), max_streams=3)
    file = TokenFile(folder / "made.json")
    file.path.unlink(missing_ok=True)
    file.add(token)
    return file.path.read_bytes()


def _tokens(folder: Path, data: bytes) -> None:
    file = folder / "tokens.json"
    file.write_bytes(data)
    TokenFile(file).read()


def _payload(data: bytes) -> None:
    for line in ("tele/+/SENSOR time=Time ENERGY.Power", "tele/+/SENSOR"):
        Subscription.parse(line).read("tele/a/SENSOR", data, {"sensors": ()}, [])


def _door(folder: Path) -> Parser:
    from streamer.metrics import Metrics

    _token_file(folder)
    access = Access(Settings(token_file=str(folder / "made.json"), state_directory=folder), Metrics())
    access.load()

    def read(data: bytes) -> None:
        fields = [part.decode("latin-1") for part in data.split(b"\n")] + [""] * 6
        names = ("host", "origin", "authorization", "sec-fetch-site", "content-type", "user-agent")
        headers: dict[str, Any] = dict(zip(names, fields, strict=False))
        access.admit("POST", f"/v1/{fields[1]}", headers, fields[0], fields[2].split(","))
        raise AssertionError("the request was admitted")

    samples = (
        b"localhost:8765\nhttps://evil.example\nBearer x\ncross-site\ntext/plain\ncurl",
        b"[::1]:1\nnull\nBasic OnRva2Vu\n\n",
    )
    return Parser(read, (Denied,), samples)  # fmt: skip
