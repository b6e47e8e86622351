"""PostgreSQL through libpq (psycopg2): COPY in both directions, cursors, notifications, asynchronous connections.

The server is named by libpq's own variables in the environment."""

import concurrent.futures
import hashlib
import io
import select
import threading

import psycopg2
import psycopg2.extensions
import psycopg2.extras


def in_threads(what, count):
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        said = [threads.submit(what, number) for number in range(count)]
        print(what.__name__, sorted({one.result() for one in said}))


def lines(number, count):
    return "".join(f"{row}\t{hashlib.sha256(f'{number} {row}'.encode()).hexdigest() * 3}\n" for row in range(count))


def copies(number):
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute(f"create table copies{number} (id int, text text)")
        for rows in (1, 100, 15_000):
            sent = lines(number, rows)
            cursor.execute(f"truncate copies{number}")
            cursor.copy_expert(f"copy copies{number} from stdin", io.StringIO(sent), size=50_000)
            got = io.StringIO()
            cursor.copy_expert(f"copy copies{number} to stdout", got)
            assert got.getvalue() == sent, (number, rows)
        cursor.execute(f"select count(*), sum(length(text)) from copies{number}")
        return cursor.fetchone()


def rows(number):
    connection = psycopg2.connect("")
    with connection, connection.cursor() as cursor:
        cursor.execute(f"create table rows{number} (id int, body bytea)")
        for turn, size in enumerate((0, 1, 100, 8000, 20_000, 300_000, 4_000_000)):
            body = hashlib.sha256(f"{number} {turn}".encode()).digest() * (size // 32 + 1)
            cursor.execute(f"insert into rows{number} values (%s, %s) returning body", (turn, body))
            assert bytes(cursor.fetchone()[0]) == body, (number, size)
        for turn in range(300):
            cursor.execute("select %s::int, repeat(%s, %s)", (turn, "x", turn * 7))
            assert cursor.fetchone() == (turn, "x" * (turn * 7))
        psycopg2.extras.execute_values(cursor, f"insert into rows{number} values %s", [(turn, b"") for turn in range(3000)])
    with connection, connection.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("select i, md5(i::text) from generate_series(1, 4000) i")
        for turn, (value, text) in enumerate(cursor, 1):
            assert (value, text) == (turn, hashlib.md5(str(turn).encode()).hexdigest())
    connection.close()
    return turn


def notifications():
    count, ready, problems = 500, threading.Barrier(5), []

    def listen():
        connection = psycopg2.connect("")
        connection.autocommit = True
        connection.cursor().execute("listen news")
        ready.wait()
        heard = []
        while len(heard) < count:
            if not select.select([connection], [], [], 60)[0]:
                problems.append(f"only {len(heard)} notifications")
                break
            connection.poll()
            heard += [note.payload for note in connection.notifies]
            connection.notifies.clear()
        if heard != [f"{turn} " + "n" * (turn * 15) for turn in range(count)]:
            problems.append("other notifications than those sent")
        connection.close()

    listeners = [threading.Thread(target=listen) for _ in range(4)]
    for one in listeners:
        one.start()
    ready.wait()
    connection = psycopg2.connect("")
    connection.autocommit = True
    with connection.cursor() as cursor:
        for turn in range(count):
            cursor.execute("select pg_notify('news', %s)", (f"{turn} " + "n" * (turn * 15),))
    for one in listeners:
        one.join()
    connection.close()
    assert not problems, problems
    print("notifications", count)


def wait(connections):
    """Drives asynchronous connections until none of them wants to read or write."""
    reading, writing = list(connections), []
    while reading or writing:
        ready = sum(select.select(reading, writing, [], 60)[:2], [])
        assert ready, "nothing happens"
        for one in ready:
            reading, writing = [[other for other in group if other is not one] for group in (reading, writing)]
            state = one.poll()
            if state == psycopg2.extensions.POLL_READ:
                reading.append(one)
            elif state == psycopg2.extensions.POLL_WRITE:
                writing.append(one)


def asynchronous():
    connections = [psycopg2.connect("", async_=True) for _ in range(20)]
    # A connection that is being made wants to write first.
    for one in connections:
        while (state := one.poll()) != psycopg2.extensions.POLL_OK:
            group = ([one], []) if state == psycopg2.extensions.POLL_READ else ([], [one])
            assert any(select.select(*group, [], 60)[:2])
    cursors = [one.cursor() for one in connections]
    for turn in range(40):
        size = (turn % 8) ** 5 * 10
        for number, cursor in enumerate(cursors):
            cursor.execute("select %s::int, %s || repeat('y', %s)", (number, "z" * size, size))
        wait(connections)
        for number, cursor in enumerate(cursors):
            assert cursor.fetchone() == (number, "z" * size + "y" * size)
    for one in connections:
        one.close()
    print("asynchronous", turn)


def cancel_sleeper(connection):
    """Cancels what a connection does as soon as the server sleeps in it."""
    with psycopg2.connect("") as other, other.cursor() as cursor:
        asleep = None
        while asleep != ("PgSleep",):
            cursor.execute("select wait_event from pg_stat_activity where pid = %s", (connection.info.backend_pid,))
            asleep = cursor.fetchone()
            other.rollback()
    connection.cancel()


def cancelled(number):
    connection = psycopg2.connect("")
    with connection.cursor() as cursor:
        for turn in range(5):
            canceller = threading.Thread(target=cancel_sleeper, args=(connection,))
            canceller.start()
            try:
                cursor.execute("select pg_sleep(600)")
                raise AssertionError("it slept")
            except psycopg2.extensions.QueryCanceledError:
                connection.rollback()
            canceller.join()
            cursor.execute("select %s", ("c" * 10_000,))
            assert cursor.fetchone() == ("c" * 10_000,)
    connection.close()
    return turn


if __name__ == "__main__":
    in_threads(copies, 5)
    in_threads(rows, 5)
    notifications()
    asynchronous()
    in_threads(cancelled, 3)
