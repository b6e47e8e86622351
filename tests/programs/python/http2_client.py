"""HTTP/2 without TLS by httpx: http2_client.py ADDRESS NAME=SIZE.., where every file is given, and uploads are echoed at
/upload if there is a name "upload"."""

import asyncio
import hashlib
import sys

import httpx


def body(seed, size):
    return (hashlib.sha256(str(seed).encode()).digest() * (size // 32 + 1))[:size]


async def files(client, names):
    async def one(name):
        answer = await client.get(f"/{name}")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer
        return hashlib.sha256(answer.content).hexdigest()

    # Many streams of one connection at the same time.
    said = await asyncio.gather(*(one(name) for name in names * 12))
    print(*sorted(set(zip(names * 12, said))), sep="\n")


async def uploads(client):
    async def one(number):
        sent = body(number, (0, 1, 1000, 20_000, 400_000)[number % 5])
        answer = await client.post("/upload", content=sent)
        assert (answer.status_code, answer.content) == (200, sent), (number, answer)

    await asyncio.gather(*(one(number) for number in range(60)))
    print("uploads")


def one_after_the_other(address, names):
    with httpx.Client(base_url=address, http1=False, http2=True, timeout=60) as client:
        for turn in range(40):
            name = names[turn % len(names)]
            answer = client.get(f"/{name}")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer
    print("one after the other")


async def main(address, names):
    upload = "upload" in names
    names = [name for name in names if name != "upload"]
    limits = httpx.Limits(max_connections=3)
    async with httpx.AsyncClient(base_url=address, http1=False, http2=True, timeout=60, limits=limits) as client:
        await files(client, names)
        if upload:
            await uploads(client)
    one_after_the_other(address, names)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
