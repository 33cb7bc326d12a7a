"""An aiohttp server that reads, parses and validates an apply request like the agent, and records nothing."""

from __future__ import annotations

import asyncio
import signal
import sys

from aiohttp import web

from boreas_agent import strictjson
from boreas_agent.spec import parse_submission


async def apply(request: web.Request) -> web.Response:
    submission = parse_submission(strictjson.loads(await request.read()))
    receipt = {
        "success": True,
        "message": "validated",
        "app": submission.app,
        "version": submission.version,
        "revision": 1,
        "changed": True,
    }
    return web.json_response(receipt)


async def serve(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    app.add_routes([web.post("/v1/apply", apply)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
