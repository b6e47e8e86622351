"""Questions to a DNS server over TCP, many of them before the first answer: dns_pipeline.py PORT ZONE CONNECTIONS QUESTIONS NAMES.

The TXT record of nK.ZONE is expected to consist of K * 37 % 20000 characters "x" in strings of 250."""

import asyncio
import random
import struct
import sys

TXT, INTERNET = 16, 1


def question(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    body = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", TXT, INTERNET)
    return struct.pack("!H", len(body)) + body


def skip_name(message, at):
    while message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += 1 + message[at]
    return at + 1


def text(message):
    """The number of a message and the joined strings of its only answer."""
    number, flags, questions, answers, *_ = struct.unpack_from("!HHHHHH", message)
    assert (flags & 0x8000, flags & 0xF, questions, answers) == (0x8000, 0, 1, 1), message[:12]
    at = skip_name(message, skip_name(message, 12) + 4)
    kind, _, _, length = struct.unpack_from("!HHIH", message, at)
    at, end, parts = at + 10, at + 10 + length, []
    assert kind == TXT and end <= len(message)
    while at < end:
        parts.append(message[at + 1 : at + 1 + message[at]])
        at += 1 + message[at]
    return number, b"".join(parts)


async def ask(port, zone, seed, count, names):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    chosen = random.Random(seed)
    asked = [chosen.randrange(names) for _ in range(count)]
    missing = set(range(count))
    room = asyncio.Semaphore(50)

    async def send():
        for number, name in enumerate(asked):
            await room.acquire()
            writer.write(question(number, f"n{name}.{zone}"))
            await writer.drain()

    sender = asyncio.ensure_future(send())
    while missing:
        (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 60))
        number, got = text(await asyncio.wait_for(reader.readexactly(length), 60))
        assert got == b"x" * (asked[number] * 37 % 20_000), (number, asked[number], len(got))
        missing.remove(number)
        room.release()
    await sender
    writer.close()
    await writer.wait_closed()


async def main(port, zone, connections, questions, names):
    await asyncio.gather(*(ask(int(port), zone, seed, int(questions), int(names)) for seed in range(int(connections))))
    print(f"{connections} connections, {questions} questions each, every answer right")


asyncio.run(main(*sys.argv[1:]))
