"""A service for tests: `serving_process.py [fails|needs-a-person|ends|hangs|settings]`."""

import asyncio
import sys

from everloop_kernel.errors import ConfigurationError
from everloop_kernel.http import json_response
from everloop_kernel.service import main, serve
from everloop_kernel.settings import HttpSettings, PlatformSettings
from pydantic_settings import SettingsConfigDict
from starlette.routing import Route

BEHAVIOUR = sys.argv[1] if len(sys.argv) > 1 else "works"


class OwnSettings(HttpSettings):
    model_config = SettingsConfigDict(env_prefix="EVERLOOP_TEST_")


class Worker:
    name = "worker"

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    async def run(self) -> None:
        if BEHAVIOUR == "fails":
            await asyncio.sleep(0.2)
            raise KeyError("a bug")
        if BEHAVIOUR == "needs-a-person":
            raise ConfigurationError("the state cannot be read", "Restore it")
        if BEHAVIOUR == "ends":
            return
        await self._stop.wait()
        if BEHAVIOUR == "hangs":
            await asyncio.sleep(60)
        sys.stdout.write("drained\n")
        sys.stdout.flush()

    def stop(self) -> None:
        self._stop.set()

    def not_ready(self) -> str | None:
        return None


async def slow(_request):
    await asyncio.sleep(1)
    return json_response("finished")


async def run() -> int:
    if BEHAVIOUR == "raises":
        raise ValueError("before anything has started")
    return await serve(
        "test", [Worker()], platform=PlatformSettings(), http=OwnSettings(), routes=[Route("/slow", slow)]
    )


if __name__ == "__main__":
    main(run)
