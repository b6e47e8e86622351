"""PostgreSQL through asyncpg, which speaks the protocol itself: a pool, pipelined statements, COPY, cancellation.

The server is named by libpq's own variables in the environment."""

import asyncio
import hashlib
import io

import asyncpg


def body(seed, size):
    return (hashlib.sha256(str(seed).encode()).digest() * (size // 32 + 1))[:size]


async def pooled(pool):
    async def one(number):
        size = (0, 10, 1000, 9000, 100_000)[number % 5]
        sent = body(number, size)
        assert await pool.fetchval("select $1::bytea", sent) == sent
        assert await pool.fetchval("select $1::int + 1", number) == number + 1

    await asyncio.gather(*(one(number) for number in range(600)))
    print("pooled")


async def rows(pool):
    async with pool.acquire() as connection:
        await connection.execute("create table records (id int primary key, name text, body bytea)")
        # All of these are sent before the first answer is read.
        await connection.executemany(
            "insert into records values ($1, $2, $3)", [(number, f"name {number}", body(number, number % 300)) for number in range(5000)]
        )
        await connection.copy_records_to_table(
            "records", records=[(number, "copied", body(number, 1000)) for number in range(5000, 10_000)]
        )
        got = await connection.fetch("select * from records order by id")
        assert len(got) == 10_000
        for number, row in enumerate(got):
            right = (f"name {number}", body(number, number % 300)) if number < 5000 else ("copied", body(number, 1000))
            assert (row["id"], row["name"], row["body"]) == (number, *right)
        async with connection.transaction():
            seen = 0
            async for row in connection.cursor("select id from records order by id", prefetch=37):
                assert row["id"] == seen
                seen += 1
        print("rows", len(got), seen)


async def large(pool):
    async def one(number):
        sent = body(number, 6_000_000 + number)
        assert await pool.fetchval("select $1::bytea", sent) == sent

    await asyncio.gather(*(one(number) for number in range(6)))
    out = io.BytesIO()
    query = "select i, md5(i::text) from generate_series(1, 60000) i"
    await pool.copy_from_query(query, output=out)
    right = "".join(f"{number}\t{hashlib.md5(str(number).encode()).hexdigest()}\n" for number in range(1, 60_001))
    assert out.getvalue().decode() == right
    await pool.execute("create table copied (id int, text text)")
    out.seek(0)
    print("large", await pool.copy_to_table("copied", source=out))


async def cancellation(pool):
    async def one(number):
        async with pool.acquire() as connection:
            for turn in range(5):
                try:
                    await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.02)
                    raise AssertionError("it slept")
                except asyncio.TimeoutError:
                    pass
                # A question that is given up while it waits for the end of an earlier one would spoil the next.
                assert await connection.fetchval("select $1::int", turn) == turn
                # Given up in the middle of a long answer.
                try:
                    query = "select repeat(md5(i::text), 30) from generate_series(1, 2000000) i"
                    await asyncio.wait_for(connection.fetch(query), 0.05)
                    raise AssertionError("it was fast")
                except asyncio.TimeoutError:
                    pass
                assert await connection.fetchval("select $1::int", turn) == turn

    await asyncio.gather(*(one(number) for number in range(4)))
    print("cancellation")


async def notifications(pool):
    heard, done = [], asyncio.Event()

    def hear(connection, process, channel, payload):
        heard.append(payload)
        if len(heard) == 500:
            done.set()

    async with pool.acquire() as connection:
        await connection.add_listener("news", hear)
        for turn in range(500):
            await pool.execute("select pg_notify('news', $1)", f"{turn} " + "n" * turn)
        await asyncio.wait_for(done.wait(), 60)
        await connection.remove_listener("news", hear)
    assert heard == [f"{turn} " + "n" * turn for turn in range(500)]
    print("notifications", len(heard))


async def ended(pool):
    """Connections that break off while the server is still answering."""
    for _ in range(5):
        connection = await asyncpg.connect()
        task = asyncio.ensure_future(connection.fetch("select repeat('x', 1000) from generate_series(1, 1000000)"))
        await asyncio.sleep(0.02)
        connection.terminate()
        try:
            await task
            raise AssertionError("it was answered")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
            pass
    assert await pool.fetchval("select 1") == 1
    print("ended")


async def main():
    async with asyncpg.create_pool(min_size=5, max_size=12) as pool:
        for part in (pooled, rows, large, cancellation, notifications, ended):
            await asyncio.wait_for(part(pool), 100)


asyncio.run(main())
