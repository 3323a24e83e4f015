"""KServe over gRPC with tokens: in the metadata, by scope, by owner, and no more than it may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from streamer.serve.access.tokens import new_secret
from tests.daemon.running import Running
from tests.daemon.tenants import give
from tests.serve.kserve.clients import tensors
from tests.serve.kserve.conftest import serving

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


class Served(NamedTuple):
    client: grpc_client.InferenceServerClient
    running: Running
    secrets: dict[str, str]

    def infer(self, name: str, **options: Any) -> Any:
        secret = self.secrets.get(name, name)
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return self.client.infer("plant", tensors(grpc_client, {"x": ROWS}), headers=headers, **options)


@pytest.fixture(scope="module")
def served(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("grpc-tokens")
    state = folder / "state"
    state.mkdir()
    secrets = {name: give(state, name, "stream") for name in ("alice", "bob")}
    secrets["reader"] = give(state, "reader", "read")
    secrets["slow"] = give(state, "slow", "stream", requests_per_second=0.01)
    secrets["small"] = give(state, "small", "stream", bytes_per_second=10)
    secrets["few"] = give(state, "few", "stream", max_streams=2)
    with serving(folder, models[0], max_failed_tokens=1000) as running:
        client = grpc_client.InferenceServerClient(f"127.0.0.1:{running.grpc_port}")  # type: ignore[attr-defined]
        yield Served(client, running, secrets)
        client.close()


def status(refused: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(refused.value.status()).removeprefix("StatusCode.")


def test_without_a_token_it_only_tells_that_it_lives(served: Served) -> None:
    assert served.client.is_server_live()
    assert served.client.is_server_ready()
    for call in (lambda: served.infer(""), served.client.get_server_metadata, lambda: served.infer(new_secret())):
        with pytest.raises(InferenceServerException) as refused:
            call()
        assert status(refused) == "UNAUTHENTICATED"


def test_scopes(served: Served) -> None:
    reading = {"authorization": f"Bearer {served.secrets['reader']}"}
    assert served.client.get_model_metadata("plant", headers=reading).name == "plant"
    with pytest.raises(InferenceServerException, match="needs the scope stream") as refused:
        served.infer("reader")
    assert status(refused) == "PERMISSION_DENIED"
    with pytest.raises(InferenceServerException, match="needs the scope admin"):
        served.client.load_model("plant", headers=reading)


def test_sequences_of_owners_are_apart_on_one_connection(served: Served) -> None:
    for name in ("alice", "bob"):
        served.infer(name, sequence_id=7, sequence_start=True)
    served.infer("alice", sequence_id=7)
    for name, position in (("alice", 6), ("bob", 4)):
        answer = served.infer(name, sequence_id=7, sequence_end=True).get_response()
        assert answer.parameters["sequence_position"].int64_param == position


@pytest.mark.parametrize("name", ["slow", "small"])
def test_who_sends_more_than_he_may_is_told_when_to_come_back(served: Served, name: str) -> None:
    served.infer(name)
    with pytest.raises(InferenceServerException, match="a second") as refused:
        served.infer(name)
    assert status(refused) == "RESOURCE_EXHAUSTED"


def test_no_more_streams_than_he_may_have(served: Served) -> None:
    for number in (1, 2):
        served.infer("few", sequence_id=number, sequence_start=True)
    with pytest.raises(InferenceServerException, match="max_streams") as refused:
        served.infer("few", sequence_id=3, sequence_start=True)
    assert status(refused) == "RESOURCE_EXHAUSTED"
    with pytest.raises(InferenceServerException, match="max_streams"):
        served.infer("few")  # one without a sequence is one, too
    served.infer("alice", sequence_id=3, sequence_start=True)
    served.infer("few", sequence_id=1, sequence_end=True)
    served.infer("few", sequence_id=3, sequence_start=True)
    for number in (2, 3):
        served.infer("few", sequence_id=number, sequence_end=True)
