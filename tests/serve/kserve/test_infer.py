"""The real tritonclient against the real daemon: what every wire does alike."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from streamer.engine.model import Model
from tests.contract.several import reference, signal
from tests.daemon.running import Running
from tests.serve.kserve.clients import WIRES, Wire
from tests.serve.kserve.conftest import serving
from tests.serve.kserve.plant import TRAP, rows, truth
from tests.toys import samples

Connect = Callable[[Running], Wire]


def refused(wire: Wire, status: str, message: str = "") -> Any:
    """The client gets an error of that status (as its wire writes it) that holds ``message``."""
    return pytest.raises(
        InferenceServerException, check=lambda e: e.status() == getattr(wire, status) and message in e.message()
    )


# -- sequences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [42, 2**63 - 1, "pump-7"])
def test_a_sequence_goes_on_from_request_to_request(served: Running, connect: Connect, id: int | str) -> None:
    wire, given = connect(served), rows(1, 20)
    found = []
    for at in range(0, 20, 4):
        result = wire.infer("plant", given[at : at + 4], sequence_id=id, sequence_start=at == 0, sequence_end=at == 16)
        assert wire.position(result) == at + 4
        found.append(result.as_numpy("y"))
        assert result.as_numpy("low").dtype == bool
    np.testing.assert_array_equal(np.concatenate(found, axis=1)[0], truth(given))
    with refused(wire, "invalid", "must specify the START flag on the first request of the sequence"):
        wire.infer("plant", given[:2], sequence_id=id)


def test_a_request_alone_starts_at_zero_and_leaves_nothing(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(2, 6)
    for _ in range(3):
        np.testing.assert_array_equal(wire.infer("plant", given).as_numpy("y")[0], truth(given))


def test_sequences_side_by_side_do_not_mix(served: Running, connect: Connect) -> None:
    wire = connect(served)
    given = {id: rows(number, 8) for number, id in enumerate([7, "7", 8, "other"])}
    found: dict[int | str, list[Any]] = {id: [] for id in given}
    for at in range(0, 8, 2):
        for id, whole in given.items():
            result = wire.infer("plant", whole[at : at + 2], sequence_id=id, sequence_start=at == 0)
            found[id].append(result.as_numpy("y"))
    for id, whole in given.items():
        np.testing.assert_array_equal(np.concatenate(found[id], axis=1)[0], truth(whole))


def test_a_start_in_the_middle_begins_at_zero(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(3, 4)
    for _ in range(3):
        result = wire.infer("plant", given, sequence_id=5, sequence_start=True)
        np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))
        assert wire.position(result) == 4


def test_an_end_without_rows_ends(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(3, 4)
    wire.infer("plant", given, sequence_id=6, sequence_start=True)
    result = wire.infer("plant", given[:0], sequence_id=6, sequence_end=True)
    assert result.as_numpy("y").shape == (1, 0, 3)
    with refused(wire, "invalid", "must specify the START flag"):
        wire.infer("plant", given, sequence_id=6)
    with refused(wire, "invalid", "no rows"):
        wire.infer("plant", given[:0], sequence_id=6, sequence_start=True)


def test_a_position_makes_it_safe_to_send_again(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(4, 6)
    wire.infer("plant", given[:4], sequence_id=9, sequence_start=True, parameters={"sequence_position": 0})
    with refused(wire, "conflict", "is at row 4, not at 0: nothing was taken"):
        wire.infer("plant", given[:4], sequence_id=9, parameters={"sequence_position": 0})
    result = wire.infer("plant", given[4:], sequence_id=9, parameters={"sequence_position": 4})
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[4:])


def test_inputs_of_one_clock_and_conditions(served: Running, connect: Connect) -> None:
    wire = connect(served)
    x, gate, speaker, language = signal(3, 6)
    once = {"speaker": speaker, "language": np.array([language])}
    expected = reference(x, gate, speaker, language)
    first = wire.infer("several", {"x": x[:4], "gate": gate[:4], **once}, sequence_id=1, sequence_start=True)
    with refused(wire, "invalid", "is set once for a sequence"):
        wire.infer("several", {"x": x[4:], "gate": gate[4:], **once}, sequence_id=1)
    with refused(wire, "invalid", "every input has as many rows"):
        wire.infer("several", {"x": x[4:], "gate": gate[5:]}, sequence_id=1)
    second = wire.infer("several", {"x": x[4:], "gate": gate[4:]}, sequence_id=1)
    found = np.concatenate([first.as_numpy("y"), second.as_numpy("y")], axis=1)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    alone = wire.infer("several", {"x": x, "gate": gate, **once})
    np.testing.assert_allclose(alone.as_numpy("y")[0], expected, rtol=1e-4, atol=1e-6)


def test_a_transcribers_numbers_come_as_they_are(served: Running, connect: Connect, models: tuple[Path, ...]) -> None:
    wire, pcm = connect(served), samples(4, 4 * 320)
    model = Model.load(models[2])
    feeds, expected = model.zero_state(1), []
    for chunk in pcm.reshape(4, 1, 320):
        outputs = model.run({"pcm": chunk, **feeds})
        feeds = {state.in_: outputs[state.out].copy() for state in model.manifest.states}
        expected.append(outputs["log_probs"].copy())
    found = [
        wire.infer("toy", {"pcm": chunk}, sequence_id=1, sequence_start=at == 0).as_numpy("log_probs")
        for at, chunk in enumerate(pcm.reshape(2, 640))
    ]
    np.testing.assert_allclose(np.concatenate(found, axis=1), np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_one_id_of_two_clients_is_two_sequences(served: Running, connect: Connect) -> None:
    mine, theirs = connect(served), connect(served)
    given = rows(5, 6), rows(6, 6)
    mine.infer("plant", given[0][:4], sequence_id=1, sequence_start=True)
    with refused(theirs, "invalid", "must specify the START flag"):
        theirs.infer("plant", given[1][:4], sequence_id=1)
    theirs.infer("plant", given[1][:4], sequence_id=1, sequence_start=True)
    for wire, whole in zip((mine, theirs), given, strict=True):
        result = wire.infer("plant", whole[4:], sequence_id=1)
        np.testing.assert_array_equal(result.as_numpy("y")[0], truth(whole)[4:])


def test_a_sequence_goes_on_after_its_connection_broke(served: Running, connect: Connect) -> None:
    given, first = rows(7, 6), connect(served)
    first.infer("plant", given[:4], sequence_id="broken", sequence_start=True)
    first.close()
    second = connect(served)
    result = second.infer("plant", given[4:], sequence_id="broken", sequence_end=True)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[4:])


def test_two_that_lost_their_connections_are_not_guessed_at(served: Running, connect: Connect) -> None:
    for seed in (1, 2):
        wire = connect(served)
        wire.infer("plant", rows(seed, 2), sequence_id="twin", sequence_start=True)
        wire.close()
    wire = connect(served)
    with refused(wire, "invalid", "several sequences 'twin' of your address"):
        wire.infer("plant", rows(1, 2), sequence_id="twin")


def test_who_says_a_secret_is_one_client_on_every_connection(served: Running, connect: Connect) -> None:
    given = rows(8, 6)
    first, second = connect(served), connect(served)
    headers = {"streamer-client": "correct horse battery staple"}
    first.infer("plant", given[:4], sequence_id=3, sequence_start=True, headers=headers)
    for others in ({}, {"streamer-client": "guessed"}):
        with refused(second, "invalid", "must specify the START flag"):
            second.infer("plant", given[4:], sequence_id=3, headers=others)
    result = second.infer("plant", given[4:], sequence_id=3, headers=headers)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[4:])


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_what_is_wrong_is_said_and_costs_no_sequence(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(9, 6)
    wire.infer("plant", given[:4], sequence_id=2, sequence_start=True)
    for wrong, message in [
        (given[4:5], "input 'x' has the shape [1, 1, 3], it expects [1, 2, 3], or a multiple of 2 rows"),
        (given[4:, :2], "it expects [1, 2, 3]"),
        (given[4], "it expects [1, 2, 3]"),
        ({"z": given[4:]}, "unexpected inference input 'z': it has x"),
        ({}, "input 'x' is missing: expected 1 inputs but got 0"),
        (given[4:].astype(np.float64), "has the datatype FP64, it expects FP32"),
    ]:
        with refused(wire, "invalid", message):
            wire.infer("plant", wrong, sequence_id=2)
    result = wire.infer("plant", given[4:], sequence_id=2)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[4:])


def test_models_and_versions_that_are_not_there(served: Running, connect: Connect) -> None:
    wire = connect(served)
    for model, version in (("nobody", ""), ("plant", "7")):
        with pytest.raises(InferenceServerException, match="Request for unknown model") as caught:
            wire.infer(model, rows(1, 2), model_version=version)
        assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
    assert wire.infer("plant", rows(1, 2), model_version="1").as_numpy("y").shape == (1, 2, 3)


def test_a_failing_run_is_the_request_and_the_sequence_of_its_own(served: Running, connect: Connect) -> None:
    wire, given = connect(served), rows(10, 6)
    bad = given[:2].copy()
    bad[1, 2] = TRAP
    wire.infer("plant", given[:4], sequence_id=1, sequence_start=True)
    wire.infer("plant", given[:2], sequence_id=2, sequence_start=True)
    with refused(wire, "internal", "the model failed"):
        wire.infer("plant", bad, sequence_id=2)
    with refused(wire, "invalid", "sequence 2 is over: the model failed"):
        wire.infer("plant", given[:2], sequence_id=2)
    with refused(wire, "internal", "the model failed"):
        wire.infer("plant", bad)
    result = wire.infer("plant", given[4:], sequence_id=1)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[4:])
    result = wire.infer("plant", given, sequence_id=2, sequence_start=True)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_no_slot_is_told_or_waited_for(tight: Running, connect: Connect) -> None:
    wire, other, given = connect(tight), connect(tight), rows(1, 4)
    wire.infer("plant", given, sequence_id=1, sequence_start=True)
    with refused(other, "unavailable", "all 1 slots of plant are taken"):
        other.infer("plant", given, sequence_id=2, sequence_start=True)
    with refused(other, "unavailable", "all 1 slots of plant are taken"):
        other.infer("plant", given)
    with refused(other, "unavailable", "the request's timeout of 0.2 s has passed: nothing of it was taken"):
        other.infer("plant", given, sequence_id=2, sequence_start=True, timeout=200_000)
    with refused(other, "invalid", "must specify the START flag"):
        other.infer("plant", given, sequence_id=2)

    def patient() -> Any:
        third = type(other)(tight)  # type: ignore[call-arg]  # a client is its thread's
        try:
            result = third.infer("plant", given, sequence_id=2, sequence_start=True, timeout=60_000_000)
            return third.infer("plant", given, sequence_id=2, sequence_end=True), result.as_numpy("y")
        finally:
            third.close()

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(patient)
        wire.infer("plant", given, sequence_id=1, sequence_end=True)
        np.testing.assert_array_equal(waiting.result()[1][0], truth(given))


@pytest.mark.long
def test_the_bodies_of_all_requests_are_bounded(small: Running, connect: Connect) -> None:
    wire, given = connect(small), rows(1, 100_000)
    with refused(wire, "unavailable", "of 1048576 (max_request_memory)"):
        wire.infer("plant", given)
    for _ in range(4):  # what is refused for another reason is given back
        with refused(wire, "invalid", "it expects [1, 2, 3]"):
            wire.infer("plant", given[:40_001])
    np.testing.assert_array_equal(wire.infer("plant", given[:4]).as_numpy("y")[0], truth(given[:4]))
    while small.metrics()["streamer_request_bytes"]:  # given back just behind the answer
        pass


@pytest.mark.long
def test_an_evicted_sequence_is_told_so(models: tuple[Path, ...], tmp_path: Path) -> None:
    settings = {"idle_seconds": 0.3, "checkpoint_seconds": 0.05, "kserve_resume_by_address": False}
    with serving(tmp_path, models[0], **settings) as running:
        given = rows(1, 4)
        wires: dict[str, Wire] = {name: kind(running) for name, kind in WIRES.items()}
        for id, wire in wires.items():
            wire.infer("plant", given, sequence_id=id, sequence_start=True)
        while running.metrics().get('streamer_evictions_total{reason="idle_timeout"}', 0) < 2:
            pass
        for id, wire in wires.items():
            with refused(wire, "invalid", f"sequence '{id}' is over: it was evicted, nothing came for 0.3 s"):
                wire.infer("plant", given, sequence_id=id)
            with refused(wire, "invalid", "must specify the START flag"):
                wire.infer("plant", given, sequence_id=id)
            result = wire.infer("plant", given, sequence_id=id, sequence_start=True)
            np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))
            wire.close()
        for kind in WIRES.values():  # and with that setting nothing goes on for an address
            first, second = kind(running), kind(running)
            first.infer("plant", given, sequence_id="lone", sequence_start=True)
            first.close()
            with refused(second, "invalid", "must specify the START flag"):
                second.infer("plant", given, sequence_id="lone")
            second.close()
