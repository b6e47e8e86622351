"""Many asyncio clients that check every byte: echo_client.py PORT CLIENTS ROUNDS."""

import asyncio
import sys


def message(number, turn):
    size = 1 + (number * 131 + turn * turn * 57) % 20_000
    return bytes((number + turn + at) % 251 for at in range(min(size, 251))) * (size // 251 + 1)


async def talk(port, number, rounds):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for turn in range(rounds):
        sent = message(number, turn)
        writer.write(sent)
        await writer.drain()
        got = await asyncio.wait_for(reader.readexactly(len(sent)), 60)
        assert got == sent, (number, turn)
    # Everything at once, then the half close.
    sent = b"".join(message(number, turn) for turn in range(5))
    writer.write(sent)
    writer.write_eof()
    got = await asyncio.wait_for(reader.read(-1), 60)
    assert got == sent, number
    writer.close()
    await writer.wait_closed()


async def main():
    port, clients, rounds = map(int, sys.argv[1:])
    await asyncio.gather(*(talk(port, number, rounds) for number in range(clients)))
    print(f"{clients} clients, {rounds} rounds, every byte right")


asyncio.run(main())
