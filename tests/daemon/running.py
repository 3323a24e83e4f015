"""A real daemon in a process of its own, its service manager's socket, and a TCP proxy that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import typer; from streamer.commands.serve import serve; typer.run(serve)"]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Running:
    """A daemon that has said READY=1. Settings go in by environment."""

    def __init__(self, folder: Path, *models: Path, wait: bool = True, **settings: Any):
        folder.mkdir(exist_ok=True, parents=True)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self.manager.bind(str(address))
        self.manager.settimeout(60)
        port_file = folder / "port"
        port_file.unlink(missing_ok=True)
        watchdog = settings.pop("watchdog_usec", None)
        values = {"host": "127.0.0.1", "port": 0, "models": ",".join(map(str, models)), "lanes": 2, **settings}
        values.setdefault("state_directory", folder / "state")
        values = {"overload_seconds": 60, "max_load": 0, **values}  # the machine may be slow: tests are not about that
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
        environment |= {f"STREAMER_{name.upper()}": str(value) for name, value in values.items()}
        environment |= {"NOTIFY_SOCKET": str(address), "PYTHONWARNINGS": "error"}
        if watchdog:
            environment["WATCHDOG_USEC"] = str(watchdog)
        self.errors = folder / "stderr"
        with self.errors.open("ab") as stderr:
            command = [*COMMAND, "--port-file", str(port_file)]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr)
        if wait:
            try:
                self.wait_for("READY=1")
            except TimeoutError:
                self.stop(signal.SIGKILL)
                raise AssertionError(self.errors.read_text()[-3000:]) from None
            self.port = int(port_file.read_text())

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def wait_for(self, line: str) -> str:
        """The next message to the service manager that holds ``line``."""
        while True:
            message = self.manager.recv(4096).decode()
            if line in message:
                return message

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.manager.close()
        return code

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; nothing is sent but what is said here."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            given = {"Host": f"127.0.0.1:{self.port}", "Content-Length": str(len(body)), **(headers or {})}
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """``name{labels}`` -> value, as on the page."""
        page = self.get("/metrics")[1]
        return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", page, re.M)}

    def sockets(self) -> int:
        """Open connections and listeners, as the kernel counts them."""
        links = (os.readlink(fd) for fd in Path(f"/proc/{self.process.pid}/fd").iterdir() if fd.is_symlink())
        return sum(link.startswith("socket:") for link in links)


@contextlib.contextmanager
def daemon(folder: Path, *models: Path, **settings: Any) -> Iterator[Running]:
    running = Running(folder, *models, **settings)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)


class Proxy:
    """Forwards to ``target``, which may change; :meth:`cut` resets every connection, as a lost network would.
    ``last``: behind these bytes nothing comes down any more, not even the end of the connection."""

    def __init__(self, target: int, last: bytes | None = None):
        self.target, self.last = target, last
        self._pairs: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = asyncio.Condition()
        self._never = asyncio.Event()
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/stream"

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, target: int, last: bytes | None = None) -> AsyncIterator[Proxy]:
        proxy = cls(target, last)
        proxy._server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
        try:
            yield proxy
        finally:
            proxy._server.close()
            proxy._never.set()
            proxy.cut()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._pairs:
            writer.transport.abort()

    async def connections(self, count: int) -> None:
        """Wait until that many have been accepted since the start."""
        async with asyncio.timeout(30), self._accepted:
            await self._accepted.wait_for(lambda: self.accepted >= count)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._pairs |= {writer, up_writer}
        async with self._accepted:
            self.accepted += 1
            self._accepted.notify_all()
        both = [
            asyncio.create_task(self._copy(reader, up_writer)),
            asyncio.create_task(self._copy(up_reader, writer, self.last)),
        ]
        self._tasks |= set(both)
        await asyncio.gather(*both, return_exceptions=True)
        self._pairs -= {writer, up_writer}

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: bytes | None = None
    ) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data[: data.index(last) + len(last)] if last and last in data else data)
                await writer.drain()
                if last and last in data:
                    await self._never.wait()
        except OSError:
            pass
        finally:
            writer.close()
