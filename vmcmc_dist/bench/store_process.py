"""A folder as an S3 bucket, with latency in front, in a process of its own.

Run by :mod:`vmcmc_dist.bench.store`. It serves GET (with Range and If-Match) and HEAD of objects,
which is all that reading shards asks for, and checks no signature. The full S3 servers that
install from PyPI take more of the two cores for a range than decoding its images takes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from vmcmc_dist.bench.fault_proxy import FaultProxy

MISSING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
    "<Message>The specified key does not exist.</Message></Error>"
)


def application(folder: Path) -> web.Application:
    """``/BUCKET/KEY`` is the file KEY of the folder, whatever the bucket."""

    async def get(request: web.Request) -> web.StreamResponse:
        path = (folder / request.match_info["key"]).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return web.Response(status=404, text=MISSING, content_type="application/xml")
        return web.FileResponse(path, chunk_size=1 << 20)

    app = web.Application()
    app.router.add_get("/{bucket}/{key:.+}", get)
    return app


async def serve(folder: Path, latency_s: float) -> None:
    """Serve until stdin ends; the first line of stdout is the URL."""
    runner = web.AppRunner(application(folder.resolve()), access_log=None, keepalive_timeout=3600)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    with FaultProxy(f"http://127.0.0.1:{port}", latency_s=latency_s) as proxy:
        print(proxy.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
