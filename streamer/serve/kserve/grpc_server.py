"""KServe v2 over gRPC, ``inference.GRPCInferenceService``, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Any

import grpc

from streamer.serve.access.grant import ANYONE, Denied, Grant
from streamer.serve.access.rules import grpc_scopes
from streamer.serve.body import SHORT
from streamer.serve.bounds import Account, RequestMemory, TooMuchError
from streamer.serve.kserve import describe
from streamer.serve.kserve.caller import SECRET_HEADER, Caller, grpc_peer
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.grpc_codec import encode, fill, parse, text
from streamer.serve.kserve.grpc_messages import MESSAGES
from streamer.serve.parse_threads import parse_thread

if TYPE_CHECKING:
    from streamer.serve.access.gate import Access
    from streamer.serve.access.tls import ServerTls
    from streamer.serve.kserve.messages import InferRequest
    from streamer.serve.kserve.service import InferenceService

__all__ = ["GrpcServer"]

#: The grant of the current call; each call is a task of its own.
_GRANT: ContextVar[Grant] = ContextVar("grant", default=ANYONE)
SERVICE = "inference.GRPCInferenceService"
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
#: Triton's methods that this daemon does not implement; clients get an error message.
UNSERVED = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)


class GrpcServer:
    """For the event loop's thread only. ``port``: the bound port, after :meth:`start`. ``memory``: the account of the
    bytes that all requests' messages hold, those of HTTP included. ``access``: who may call what. ``tls``:
    certificates, or none."""

    def __init__(
        self,
        service: InferenceService,
        host: str,
        port: int,
        memory: RequestMemory,
        access: Access,
        tls: ServerTls | None = None,
    ) -> None:
        self._service, self._memory, self._access, self._tls = service, memory, access, tls
        self._host, self.port = host, port
        settings = service.settings
        ping = round(settings.ping_seconds * 1000)
        options = [
            # gRPC hands over a message only once it is complete: the bounds on calls bound the bytes still arriving
            ("grpc.max_receive_message_length", min(settings.kserve_max_message_bytes, settings.max_body_bytes)),
            ("grpc.max_concurrent_streams", settings.kserve_max_calls),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # a half-open connection prevents its sequences from going on
            ("grpc.keepalive_time_ms", ping),
            ("grpc.keepalive_timeout_ms", ping),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ]
        self._calls = 0
        memory.metrics.grpc_calls.set_function(lambda: self._calls)
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.kserve_max_calls)
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def start(self) -> None:
        """Bind and serve. Raises ``RuntimeError`` if the address is in use."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self.port}"
        if self._tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, _credentials(self._tls))
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Refuse new calls; running ones have ``seconds`` to end."""
        await self._server.stop(seconds)

    def _handlers(self) -> Any:
        unary: dict[str, tuple[Callable[[Any, Any], Awaitable[Any]], str]] = {
            "ServerLive": (self._server_live, "Empty"),
            "ServerReady": (self._server_ready, "Empty"),
            "ServerMetadata": (self._server_metadata, "Empty"),
            "ModelReady": (self._model_ready, "Named"),
            "ModelMetadata": (self._model_metadata, "Named"),
            "ModelConfig": (self._model_config, "Named"),
            "ModelStatistics": (self._model_statistics, "Named"),
            "RepositoryIndex": (self._repository_index, "RepositoryIndexRequest"),
            "ModelInfer": (self._infer, "ModelInferRequest"),
            **dict.fromkeys(UNSERVED, (self._unserved, "Empty")),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, call), MESSAGES[message].FromString, _serialise
            )
            for name, (call, message) in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream_infer, MESSAGES["ModelInferRequest"].FromString, _serialise
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    # -- what is served ----------------------------------------------------------------------------------------------

    async def _server_live(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        return MESSAGES["ReadyResponse"](ready=self._service.ready() is None)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return fill(MESSAGES["ServerMetadataResponse"](), describe.server())

    async def _model_ready(self, request: Any, context: Any) -> Any:
        with contextlib.suppress(KServeError):
            self._service.manifest(*_named(request))
            return await self._server_ready(request, context)
        return MESSAGES["ReadyResponse"](ready=False)

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        return fill(MESSAGES["ModelMetadataResponse"](), describe.metadata(self._service.manifest(*_named(request))))

    async def _model_config(self, request: Any, context: Any) -> Any:
        return fill(MESSAGES["ModelConfigResponse"](), {"config": self._service.config(*_named(request))})

    async def _model_statistics(self, request: Any, context: Any) -> Any:
        return fill(MESSAGES["ModelStatisticsResponse"](), self._service.statistics(*_named(request)))

    async def _repository_index(self, request: Any, context: Any) -> Any:
        return fill(MESSAGES["RepositoryIndexResponse"](), {"models": self._service.index()})

    async def _unserved(self, request: Any, context: Any) -> Any:
        raise KServeError(501, f"this method is not served here: the extensions are {', '.join(describe.EXTENSIONS)}")

    def _guarded(self, name: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """Wrap the handler of a method: check the client's rights, charge the message to the memory account, and turn
        errors into a status code and a message."""

        async def answer(request: Any, context: Any) -> Any:
            self._calls += 1
            try:
                grant = self._admit(name, context)
                _GRANT.set(grant)
                with self._memory.account() as account:
                    grant.spend(_charged(account, request))
                    return await call(request, context)
            except (KServeError, Denied) as error:
                await _refuse(context, error)
            finally:
                self._calls -= 1

        return answer

    def _admit(self, name: str, context: Any) -> Grant:
        """Raises :class:`Denied`."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        return self._access.admit_grpc(grpc_scopes(name), metadata, grpc_peer(context.peer())[0])

    def _still(self, grant: Grant) -> None:
        """Check that a running stream may send one more request. Raises :class:`KServeError`."""
        try:
            if grant.revoked:
                raise Denied(401, "token", "the token of this stream was removed")
            grant.request()
        except Denied as denied:
            self._access.count(denied)
            raise KServeError(denied.status, denied.message, denied.retry_after) from None

    # -- inference ---------------------------------------------------------------------------------------------------

    async def _infer(self, request: Any, context: Any) -> Any:
        model, version, wanted = await _parsed(request)
        return encode(await self._service.infer(model, version, wanted, _caller(context, _GRANT.get())))

    async def _stream_infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self._calls += 1
        try:
            async for answer in self._answers(requests, context):
                yield answer
        finally:
            self._calls -= 1

    async def _answers(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer requests in order. Once the limit of concurrent requests is reached, the client is not read."""
        try:
            grant = self._admit("ModelStreamInfer", context)
        except Denied as denied:
            await _refuse(context, denied)
            return
        free = asyncio.Semaphore(self._service.settings.kserve_max_pipelined)
        under_way: asyncio.Queue[tuple[asyncio.Task[Any], int] | None] = asyncio.Queue()
        with self._service.stream() as number, self._memory.account() as account:
            caller = _caller(context, grant, number)

            async def take(request: Any) -> tuple[asyncio.Task[Any], int]:
                held = 0
                try:
                    self._still(grant)
                    held = _charged(account, request)
                    grant.spend(held)
                    parsed = await _parsed(request)  # here, or a request that is parsed faster would overtake
                except KServeError as error:
                    answer = self._failed(request.id, error)
                else:
                    answer = self._answer(request.id, parsed, caller)
                return asyncio.create_task(answer), held

            async def read() -> None:
                async for request in requests:
                    await free.acquire()
                    under_way.put_nowait(await take(request))
                    del request  # while the next one is waited for

            reading = asyncio.create_task(read())
            reading.add_done_callback(lambda _: under_way.put_nowait(None))
            try:
                while (entry := await under_way.get()) is not None:
                    task, held = entry
                    yield await task
                    account.release(held)
                    free.release()
                await reading
            finally:
                reading.cancel()
                while not under_way.empty():
                    if (entry := under_way.get_nowait()) is not None:
                        entry[0].cancel()

    async def _answer(self, id: bytes, parsed: tuple[str, str, InferRequest], caller: Caller) -> Any:
        """A ``ModelStreamInferResponse``, with the error of a failed request; the stream goes on."""
        model, version, wanted = parsed
        try:
            answer = await self._service.infer(model, version, wanted, caller)
        except KServeError as error:
            return await self._failed(id, error)
        return MESSAGES["ModelStreamInferResponse"](infer_response=encode(answer, final=wanted.final))

    async def _failed(self, id: bytes, error: KServeError) -> Any:
        response = MESSAGES["ModelStreamInferResponse"](error_message=error.message.encode())
        response.infer_response.id = id
        return response


async def _parsed(request: Any) -> tuple[str, str, InferRequest]:
    """Parse a request, in a thread if its numbers are not raw bytes, which is slow. Raises :class:`KServeError`."""
    if request.raw_input_contents or request.ByteSize() <= SHORT:
        return parse(request)
    return await parse_thread(lambda: parse(request))


def _charged(account: Account, request: Any) -> int:
    """Charge the message's bytes to the account, and return them. Raises :class:`KServeError`."""
    size: int = request.ByteSize()
    try:
        account.charge(size)
    except TooMuchError as error:
        raise KServeError(503, str(error), 1.0) from None
    return size


async def _refuse(context: Any, error: KServeError | Denied) -> None:
    """Ends the call."""
    again = () if error.retry_after is None else (("retry-after", str(max(1, ceil(error.retry_after)))),)
    await context.abort(CODES.get(error.status, grpc.StatusCode.UNKNOWN), error.message, again)


def _credentials(tls: ServerTls) -> Any:
    """Credentials that give every new connection the files that :class:`ServerTls` read last."""

    def current() -> Any:
        return grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], root_certificates=tls.client_ca)

    return grpc.dynamic_ssl_server_credentials(current(), current, tls.client_ca is not None)


def _caller(context: Any, grant: Grant, stream: int = 0) -> Caller:
    address, port = grpc_peer(context.peer())
    header = dict(context.invocation_metadata() or ()).get(SECRET_HEADER, "")
    secret = header if isinstance(header, str) else header.decode("latin-1")
    return Caller(address, port, stream, secret, grant.owner)


def _named(request: Any) -> tuple[str, str]:
    return text(request.name, "name"), text(request.version, "version")


def _serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
