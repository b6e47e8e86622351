"""An asyncio echo server: echo_server.py PORT. SIGTERM ends it."""

import asyncio
import signal
import sys


async def serve(reader, writer):
    try:
        while data := await reader.read(50_000):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=500)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    async with server:
        await done.wait()


asyncio.run(main())
