"""The three servers side by side, short, with a model that costs next to nothing."""

from __future__ import annotations

import json

import pytest

from bench import servers


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(900)  # adoption is most of it
@pytest.mark.skipif(servers.sherpa() is None, reason="sherpa-onnx-bin is not installed")
def test_every_server_answers_every_client(capsys: pytest.CaptureFixture[str]) -> None:
    servers.main(["--small", "--clients", "3", "--seconds", "1.5", "--warm", "0.1", "--turns", "1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"3", "64, full"}
    for load in found.values():
        assert set(load) == {"streamer", "sherpa-onnx", "fastapi"}
        for server in load.values():
            assert 0 < server["p50_ms"] <= server["p95_ms"]
            assert server["speed"] > 0
