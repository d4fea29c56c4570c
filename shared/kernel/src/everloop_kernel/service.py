"""The life of a service's process: start, serve, drain, end.

A service's `__main__` only wires:

    async def run() -> int:
        settings = RegistrySettings()
        platform, kafka = PlatformSettings(), KafkaSettings()
        ...
        return await serve("registry", [recorder, relay], platform=platform, http=settings, routes=routes)

    if __name__ == "__main__":
        main(run)

Exit codes: 0 after SIGTERM or SIGINT, 1 when a component failed (one log line says why), 2 for unusable
settings.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NoReturn, Protocol, runtime_checkable

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from everloop_kernel import health, logs, telemetry
from everloop_kernel.auth import Authentication, Tokens, check_bind
from everloop_kernel.errors import ConfigurationError, EverloopError, one_line
from everloop_kernel.http import EXCEPTION_HANDLERS, StorableNames
from everloop_kernel.http_guard import GuardedConnection
from everloop_kernel.instrumentation import Instrumentation
from everloop_kernel.listen import bind
from everloop_kernel.settings import HttpSettings, PlatformSettings

__all__ = ["Component", "application", "main", "serve"]

DRAIN_SECONDS: Final = 25.0
"""What a component may take to end gracefully; container platforms kill after 30."""
_HTTP_DRAIN_SECONDS: Final = 5
_TICK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@runtime_checkable
class Component(Protocol):
    """A part of a process that runs until it is stopped: a consumer, a relay, a loop."""

    async def run(self) -> None:
        """Work until `stop()` (then return) or a failure (then raise)."""
        ...

    def stop(self) -> None:
        """Ask for a graceful end: finish what is half done, then return from `run`. May be called twice."""
        ...

    def not_ready(self) -> str | None:
        """None when ready, else why not."""
        ...


def application(routes: Sequence[BaseRoute], tokens: Tokens, state: health.Health) -> Starlette:
    """The HTTP application: the service's routes, health and metrics, behind authentication."""
    every = [*health.routes(state), *routes]
    middleware = [
        Middleware(Instrumentation),
        Middleware(Authentication, tokens=tokens),
        Middleware(StorableNames),
    ]
    return Starlette(routes=every, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


async def serve(
    name: str,
    components: Sequence[Component],
    *,
    platform: PlatformSettings,
    http: HttpSettings | None,
    routes: Sequence[BaseRoute] = (),
    front: Component | None = None,
) -> int:
    """Run the components and the HTTP server until a signal or a failure; returns the exit code.

    `front` is a server of the service's own in place of `http`: it too ends before the components.
    """
    logs.configure(name, platform)
    telemetry.configure(name, platform)
    process = _Process(name, components, front or _server(platform, http, routes, components))
    try:
        return await process.run()
    finally:
        await asyncio.to_thread(telemetry.shut_down)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which the process has itself, and with a tenth of its ticks."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End after the requests in flight."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Renew the date header each second, until stopped; ten ticks a second cost an idle process much."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _HttpComponent:
    """The HTTP server as a component."""

    name = "http"

    def __init__(self, http: HttpSettings, app: Starlette, state: health.Health) -> None:
        self._state = state
        self._socket = bind(http)
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                http=GuardedConnection,
                limit_concurrency=GuardedConnection.limits.connections,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_HTTP_DRAIN_SECONDS,
            )
        )

    async def run(self) -> None:
        host, port = self._socket.getsockname()[:2]
        _log.info("listening on http://%s:%s", host, port)
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._state.draining = True
        self._server.stop()

    def not_ready(self) -> str | None:
        return None


def _server(
    platform: PlatformSettings,
    http: HttpSettings | None,
    routes: Sequence[BaseRoute],
    components: Sequence[Component],
) -> _HttpComponent | None:
    if http is None:
        return None
    tokens = Tokens(platform.tokens_file)
    check_bind(http.http_host, tokens, http.variable("http_host"))
    state = health.Health(components)
    return _HttpComponent(http, application(routes, tokens, state), state)


class _Process:
    """One run of a service: its tasks, and the order in which they end."""

    def __init__(self, name: str, components: Sequence[Component], front: Component | None) -> None:
        self._name = name
        self._components = components
        self._front = [] if front is None else [front]
        self._stop = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Start everything, wait for a reason to end, drain.

        HTTP ends first: the requests it still answers need the components.
        """
        self._handle_signals()
        front = self._start(self._front)
        tasks = self._start(self._components)
        _log.info("started %s", self._name)
        await self._stop.wait()
        _log.info("stopping %s", self._name)
        for parts, group in ((self._front, front), (self._components, tasks)):
            for part in parts:
                part.stop()
            await self._drain(group)
        _log.info("stopped %s", self._name)
        return self._code

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for wanted in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(wanted, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            _log.warning("asked twice to stop: not draining")
            os._exit(1)
        self._stop.set()

    def _start(self, components: Sequence[Component]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._watched(component)) for component in components]

    async def _watched(self, component: Component) -> None:
        """Run a component; its failure, or its end without being asked, ends the process."""
        label = getattr(component, "name", None) or type(component).__name__
        try:
            await component.run()
            if not self._stop.is_set():
                raise EverloopError("it ended although nobody asked it to")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001  (whatever it is, the process must end and say so once)
            for_people = _is_for_people(error)
            self._code = max(self._code, 2 if for_people else 1)
            trace = None if for_people else error
            _log.critical("%s failed: %s", label, one_line(error), exc_info=trace)
        self._stop.set()

    async def _drain(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for tasks to end; after the limit they are cancelled and count as failed."""
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in late:
            self._code = max(self._code, 1)
            task.cancel()
        if late:
            _log.error("%d components did not drain within %.0f s", len(late), DRAIN_SECONDS)
            await asyncio.wait(late, timeout=1)


def _is_for_people(error: BaseException) -> bool:
    """Whether the text says all: what is wrong with the set-up, and how to mend it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return isinstance(error, ConfigurationError)


def main(run: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a service's wiring on uvloop and exit with its code; errors are one line on standard error."""
    try:
        code = uvloop.run(_awaited(run))
    except ConfigurationError as error:
        code = _complain(error, 2)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001  (the last line of defence: a readable line, no traceback)
        code = _complain(error, 1)
    sys.exit(code)


async def _awaited(run: Callable[[], Awaitable[int]]) -> int:
    return await run()


def _complain(error: Exception, code: int) -> int:
    logging.getLogger("everloop").debug("startup failed", exc_info=error)
    sys.stderr.write(f"everloop: {one_line(error)}\n")
    return code
