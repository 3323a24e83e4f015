"""Results through the WebSocket are those of the registry in process, whatever the network does."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from streamer.client import StreamClient, StreamError
from tests.daemon.running import Proxy, Running
from tests.daemon.talk import RATE, dial, expected, noise, opened, pieces, same, text, transcribe, until_closed


@pytest.mark.parametrize("seed", range(6))
def test_any_split_gives_the_same_events(served: Running, toy: Path, seed: int) -> None:
    pcm = noise(seed, 4)
    assert text(asyncio.run(transcribe(served.url, pieces(pcm, seed)))) == expected(toy, pcm)


def test_another_sample_rate(served: Running, toy: Path) -> None:
    pcm = noise(1, 6)
    got = asyncio.run(transcribe(served.url, pieces(pcm, 5), rate=16000))
    assert text(got) == expected(toy, pcm, 16000)


def test_an_end_right_behind_a_full_buffer(served: Running, toy: Path) -> None:
    """At another rate what the resampler held back is still to come then."""
    pcm = noise(8, 30)
    got = asyncio.run(transcribe(served.url, [pcm[: 2**20]], rate=16000))
    assert text(got) == expected(toy, pcm[: 2**20], 16000)


def test_company(served: Running, toy: Path) -> None:
    sounds = [noise(seed, 3) for seed in range(12)]

    async def together() -> list[str]:
        split = [pieces(pcm, seed) for seed, pcm in enumerate(sounds)]
        return [text(events) for events in await asyncio.gather(*(transcribe(served.url, parts) for parts in split))]

    assert asyncio.run(together()) == [expected(toy, pcm) for pcm in sounds]


@pytest.mark.long
def test_far_more_audio_than_the_buffer_holds(served: Running, toy: Path) -> None:
    """Back-pressure: the socket is held, nothing is dropped, messages behind the full buffer keep their order."""
    pcm = noise(3, 120)
    parts = [pcm[i : i + 32000] for i in range(0, len(pcm), 32000)]
    assert text(asyncio.run(transcribe(served.url, parts))) == expected(toy, pcm)


@pytest.mark.long
def test_one_call_may_send_more_than_a_frame_may_hold(served: Running, toy: Path) -> None:
    pcm = noise(9, 80)
    assert len(pcm) > 2**20
    assert text(asyncio.run(transcribe(served.url, [pcm]))) == expected(toy, pcm)


def test_a_message_may_come_in_fragments_and_half_samples(served: Running, toy: Path) -> None:
    pcm = noise(6, 2)

    async def talk() -> list[dict]:
        async with opened(served.url) as (socket, _):
            await socket.send([pcm[:1], b"", pcm[1:4001], b"", b"", pcm[4001:20000]])
            await socket.send([pcm[20000:], b""])
            await socket.send(['{"type":', '"end"}'])
            return (await until_closed(socket))[0]

    assert text(asyncio.run(talk())) == expected(toy, pcm)


def test_no_partials_on_request(served: Running, toy: Path) -> None:
    pcm = noise(2, 3)
    got = asyncio.run(transcribe(served.url, [pcm], partials=False))
    whole = [json.loads(line) for line in expected(toy, pcm).splitlines()]
    assert got == [event for event in whole if event["type"] != "partial"]


def test_ready_marker_ack_and_end(served: Running) -> None:
    async def talk() -> None:
        async with opened(served.url, model="toy") as (socket, ready):
            assert {"stream", "model", "sample_rate", "chunk_seconds", "latency_seconds", "position"} <= set(ready)
            assert (ready["type"], ready["model"], ready["position"]) == ("ready", "toy", 0)
            chunk = round(ready["chunk_seconds"] * RATE)
            await socket.send(bytes(2 * chunk))
            await socket.send('{"type":"marker","id":"here"}')
            seen = {}
            while not {"marker", "ack"} <= set(seen):
                event = json.loads(await socket.recv())
                seen[event["type"]] = event
            assert (seen["marker"]["id"], seen["marker"]["position"]) == ("here", chunk)
            assert seen["ack"]["position"] == chunk
            await socket.send('{"type":"end"}')
            frames, code = await until_closed(socket)
            assert (frames[-1]["type"], frames[-1]["position"], code) == ("end", chunk, 1000)

    asyncio.run(talk())


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_connection_is_only_a_delay(served: Running, toy: Path, seed: int) -> None:
    pcm = noise(20 + seed, 6)

    async def talk() -> tuple[str, int]:
        async with Proxy.to(served.port) as proxy, StreamClient(proxy.url, sample_rate=RATE) as stream:
            parts = pieces(pcm, seed)
            for number, part in enumerate(parts):
                await stream.send(part)
                if number in (len(parts) // 4, len(parts) // 2):
                    before = proxy.accepted
                    proxy.cut()
                    await proxy.connections(before + 1)
            await stream.end()
            return text([event async for event in stream]), proxy.accepted

    got, connections = asyncio.run(talk())
    assert connections == 3
    same(got, expected(toy, pcm))


def test_markers_survive_a_cut(served: Running) -> None:
    async def talk() -> list[str]:
        async with Proxy.to(served.port) as proxy, StreamClient(proxy.url, sample_rate=RATE) as stream:
            for number in range(6):
                await stream.send(noise(number, 0.5))
                await stream.marker(f"m{number}")
                if number % 2:
                    before = proxy.accepted
                    proxy.cut()
                    await proxy.connections(before + 1)
            await stream.end()
            return [event["id"] async for event in stream if event["type"] == "marker"]

    assert asyncio.run(talk()) == [f"m{number}" for number in range(6)]


def test_who_wants_no_partials_gets_none_after_a_cut_either(served: Running) -> None:
    pcm = pieces(noise(31, 4), 1)

    async def talk() -> list[str]:
        async with (
            Proxy.to(served.port) as proxy,
            StreamClient(proxy.url, sample_rate=RATE, partials=False) as stream,
        ):
            for number, part in enumerate(pcm):
                await stream.send(part)
                if number == len(pcm) // 3:
                    proxy.cut()
                    await proxy.connections(2)
            await stream.end()
            return [event["type"] async for event in stream]

    kinds = asyncio.run(talk())
    assert "final" in kinds
    assert "partial" not in kinds


def test_the_newer_connection_wins(served: Running, toy: Path) -> None:
    pcm = noise(4, 2)

    async def talk() -> None:
        async with opened(served.url) as (first, ready):
            await first.send(pcm[:8000])
            async with dial(served.url) as second:
                await second.send(json.dumps({"type": "resume", "stream": ready["stream"], "seq": 0}))
                again = json.loads(await second.recv())
                frames, code = await until_closed(first)
                assert (frames[-1]["type"], frames[-1]["code"], code) == ("error", "taken_over", 4409)
                await second.send(pcm[2 * again["position"] :])
                await second.send('{"type":"end"}')
                events, code = await until_closed(second)
                assert code == 1000
                whole = [json.loads(line) for line in expected(toy, pcm).splitlines()]
                finals = [event for event in whole if event["type"] != "partial"]
                assert [event for event in events if event["type"] != "partial"] == finals

    asyncio.run(talk())


def test_resume_of_an_unknown_stream(served: Running) -> None:
    async def talk() -> None:
        async with dial(served.url) as socket:
            await socket.send('{"type":"resume","stream":"nobody","seq":0}')
            frames, code = await until_closed(socket)
            assert (frames[0]["code"], code) == ("unknown_stream", 4404)

    asyncio.run(talk())


def test_leaving_hands_over_what_was_sent(served: Running) -> None:
    """Also what lies before a full buffer, in the client, in the network and in the daemon."""
    pcm = noise(5, 120)

    async def talk() -> None:
        async with StreamClient(served.url, sample_rate=RATE, key="left") as stream:
            for at in range(0, len(pcm), 32000):
                await stream.send(pcm[at : at + 32000])
        async with StreamClient(served.url, sample_rate=RATE, key="left") as stream:
            assert stream.position == len(pcm) // 2

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_an_unreachable_daemon_is_an_error() -> None:
    async def talk() -> None:
        client = StreamClient("ws://127.0.0.1:9", sample_rate=RATE, retry_seconds=0.05, first_delay=0.01)
        with pytest.raises(StreamError, match="unreachable"):
            await client.__aenter__()

    asyncio.run(talk())


def test_a_client_that_is_closed_amid_its_closing_handshake_leaves_no_socket_open(served: Running) -> None:
    async def talk() -> None:
        async with Proxy.to(served.port, last=b'"end","position":0,"seq":1}') as proxy:
            client = StreamClient(proxy.url, sample_rate=RATE)
            await client.__aenter__()
            mine = sockets()
            await client.end()
            assert (await anext(aiter(client)))["type"] == "end"
            await asyncio.sleep(0.1)
            assert sockets() == mine  # the answer to the closing frame doesn't come
            await client.close()
            await asyncio.sleep(0)
            assert sockets() < mine

    def sockets() -> int:
        links = (os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
        return sum(link.startswith("socket:") for link in links)

    asyncio.run(talk())
