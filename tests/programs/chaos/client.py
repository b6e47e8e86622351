"""A client that believes nothing: client.py KIND ADDRESS PORT SEED STOP_FILE, where KIND is one of KINDS.

Several threads, each with a connection of its own, ask and check every byte of each answer against what it must be: contents
follow from key and number. An end of a connection, clean or not, is counted, and a new one is made. What redis and PostgreSQL
have acknowledged must be there for ever; memcached may forget, but not give back something older. A thread that gets no further
for PATIENCE seconds is a hang. Lines "progress OPERATIONS BYTES CONNECTIONS ENDS" tell how far it is; "WRONG" and "HANG" end it.

client.py files DIRECTORY makes what nginx serves, client.py serve ADDRESS PORT is the server of kind echo.
"""

import hashlib
import os
import random
import select
import signal
import socket
import sys
import threading
import time

try:
    import psycopg2
except ImportError:
    psycopg2 = None

THREADS = 4
KEYS = 8
FILES = 12
PATIENCE = 90
# Operations of a connection: then comes the next one.
LIFE = 400


def contents(key, number):
    digest = hashlib.sha256(f"{key}/{number}".encode()).digest()
    size = int.from_bytes(digest[:2], "big") % (60000 if digest[2] < 8 else 1500)
    return b"%d/" % number + hashlib.shake_128(digest).digest(size).replace(b"\r", b"r").replace(b"\n", b"n")


def pause(seconds):
    """Not sleep, which libfaketime does not know in the form that Python uses."""
    select.select((), (), (), seconds)


class Wrong(Exception):
    pass


class Last(Exception):
    """The server has ended the connection with its answer, of so many bytes, as it was to."""


class Connection:
    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        # A peer that was killed while the network was cut never says so by itself.
        for option, value in ((socket.TCP_KEEPIDLE, 3), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 20)):
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def end(self):
        if self.buffer or self.socket.recv(1):
            raise Wrong("bytes behind the last")

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def close(self):
        self.socket.close()


class Keys:
    """What a thread has written under its keys: the last number that was tried, and the last that was acknowledged."""

    connect = staticmethod(Connection)

    def __init__(self, name, randoms):
        self.name, self.randoms = name, randoms
        self.ages = [0] * KEYS
        self.tried, self.known = [0] * KEYS, [0] * KEYS

    def key(self, index):
        return f"{self.name}:{index}:{self.ages[index]}"

    def lost(self):
        """A connection has ended: what it has written last may still be done, or not, at any time. Another key, then."""
        for index in range(KEYS):
            if self.tried[index] != self.known[index]:
                self.ages[index] += 1
                self.tried[index] = self.known[index] = 0

    def check(self, index, value):
        number = int(value.split(b"/", 1)[0] or b"-1") if b"/" in value else -1
        if not self.known[index] <= number <= self.tried[index]:
            raise Wrong(f"{self.name}:{index} has number {number}, not {self.known[index]} to {self.tried[index]}")
        if value != contents(self.key(index), number):
            raise Wrong(f"{self.name}:{index} number {number}: other contents, {len(value)} bytes")
        # Somebody has seen it.
        self.known[index] = number
        return len(value)


class Redis(Keys):
    def bulk(self, connection):
        head = connection.line()
        if head == b"$-1":
            return None
        if head.startswith(b"-LOADING"):
            raise EOFError
        if head[:1] != b"$":
            raise Wrong(f"redis says {head!r}")
        value = connection.exactly(int(head[1:]))
        connection.exactly(2)
        return value

    def operate(self, connection):
        batch = [self.randoms.randrange(KEYS) for _ in range(self.randoms.choice((1, 1, 1, 8)))]
        out, writes = [], []
        for index in batch:
            key = self.key(index).encode()
            if self.randoms.random() < 0.4:
                self.tried[index] += 1
                value = contents(key.decode(), self.tried[index])
                out.append(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
                writes.append((index, self.tried[index], len(value)))
            else:
                out.append(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
                writes.append((index, None, 0))
        connection.send(b"".join(out))
        moved = 0
        for index, number, size in writes:
            if number is not None:
                answer = connection.line()
                if answer == b"+OK":
                    self.known[index] = number
                elif answer.startswith((b"-LOADING", b"-MISCONF")):
                    raise EOFError
                else:
                    raise Wrong(f"redis says {answer!r}")
                moved += size
                continue
            value = self.bulk(connection)
            if value is None:
                if self.known[index]:
                    raise Wrong(f"{self.name}:{index} is gone, it was acknowledged")
            else:
                moved += self.check(index, value)
        return moved


class Memcached(Keys):
    def operate(self, connection):
        index = self.randoms.randrange(KEYS)
        key = self.key(index)
        if self.randoms.random() < 0.4:
            self.tried[index] += 1
            value = contents(key, self.tried[index])
            connection.send(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value))
            answer = connection.line()
            if answer == b"STORED":
                self.known[index] = self.tried[index]
            elif answer.startswith(b"SERVER_ERROR"):
                raise EOFError
            else:
                raise Wrong(f"memcached says {answer!r}")
            return len(value)
        connection.send(b"get %s\r\n" % key.encode())
        head = connection.line()
        if head == b"END":
            return 0
        words = head.split()
        if words[:2] != [b"VALUE", key.encode()]:
            raise Wrong(f"memcached says {head!r}")
        value = connection.exactly(int(words[3]))
        if connection.exactly(7) != b"\r\nEND\r\n":
            raise Wrong("memcached's answer has no end")
        return self.check(index, value)


class Nginx:
    def __init__(self, _, randoms):
        self.randoms = randoms

    connect = staticmethod(Connection)

    def lost(self):
        pass

    def operate(self, connection):
        number = self.randoms.randrange(FILES)
        connection.send(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        status, length, last = connection.line(), None, False
        while header := connection.line():
            name, value = header.lower().split(b":", 1)
            if name == b"content-length":
                length = int(value)
            last |= name == b"connection" and value.strip() == b"close"
        if b" 200 " not in status:
            if b" 500 " in status or b" 503 " in status:
                raise EOFError
            raise Wrong(f"nginx says {status!r}")
        if connection.exactly(length) != page(number):
            raise Wrong(f"page {number} has other contents")
        if last:
            connection.end()
            raise Last(length)
        return length


def page(number):
    return hashlib.shake_128(b"page %d" % number).digest(1 << (number + 6))


class Echo:
    def __init__(self, name, randoms):
        self.name, self.randoms, self.number = name, randoms, 0

    connect = staticmethod(Connection)

    def lost(self):
        pass

    def operate(self, connection):
        self.number += 1
        value = contents(self.name, self.number)
        connection.send(value)
        if connection.exactly(len(value)) != value:
            raise Wrong(f"echo {self.number} has other contents")
        return 2 * len(value)


class Postgres(Keys):
    """Transactions of one to four rows."""

    @staticmethod
    def connect(address):
        alive = {"keepalives_idle": 3, "keepalives_interval": 1, "keepalives_count": 20}
        try:
            connection = psycopg2.connect(host=address[0], port=address[1], user="postgres", sslmode="disable", **alive)
            with connection, connection.cursor() as cursor:
                # Two who make it at once: one of them would fail.
                cursor.execute("select pg_advisory_xact_lock(1)")
                cursor.execute("create table if not exists held (key text primary key, value bytea)")
            return connection
        except psycopg2.Error as error:
            raise EOFError from error

    def operate(self, connection):
        try:
            with connection, connection.cursor() as cursor:
                written, moved = self.transaction(cursor)
        except psycopg2.Error as error:
            raise EOFError from error
        for index in written:
            self.known[index] = self.tried[index]
        return moved

    def transaction(self, cursor):
        written, moved = set(), 0
        for index in sorted(self.randoms.sample(range(KEYS), self.randoms.choice((1, 1, 1, 4)))):
            key = self.key(index)
            if self.randoms.random() < 0.4:
                self.tried[index] += 1
                value = contents(key, self.tried[index])
                upsert = "insert into held values (%s, %s) on conflict (key) do update set value = excluded.value"
                cursor.execute(upsert, (key, value))
                written.add(index)
                moved += len(value)
                continue
            cursor.execute("select value from held where key = %s", (key,))
            if row := cursor.fetchone():
                moved += self.check(index, bytes(row[0]))
            elif self.known[index]:
                raise Wrong(f"{self.name}:{index} is gone, it was acknowledged")
        return written, moved


KINDS = {"redis": Redis, "memcached": Memcached, "nginx": Nginx, "echo": Echo, "postgres": Postgres}


class Worker:
    def __init__(self, kind, address, seed, number, stop):
        self.randoms = random.Random(f"{seed}/{number}")
        self.kind = KINDS[kind](f"{kind}-{seed}-{number}", self.randoms)
        self.address, self.stop = address, stop
        self.operations = self.bytes = self.connections = self.ends = 0
        self.moved, self.over, self.wrong = time.monotonic(), False, None

    def run(self):
        try:
            while not self.stop():
                self.connection()
        except Wrong as wrong:
            self.wrong = str(wrong)
        except Exception as error:  # pylint: disable=broad-except
            self.wrong = f"the client itself: {error!r}"
        self.over = True

    def connection(self):
        connection = None
        try:
            connection = self.kind.connect(self.address)
            self.connections += 1
            for _ in range(self.randoms.randrange(1, LIFE)):
                if self.stop():
                    break
                self.bytes += self.kind.operate(connection)
                self.operations += 1
                self.moved = time.monotonic()
                pause(self.randoms.random() * 0.004)
        except Last as last:
            self.bytes += last.args[0]
            self.operations += 1
            self.moved = time.monotonic()
        except (OSError, EOFError) as error:
            print(time.strftime("%T"), repr(error), file=sys.stderr, flush=True)
            self.ends += 1
            self.kind.lost()
            self.moved = time.monotonic()
            pause(self.randoms.random() * 0.1)
        finally:
            if connection:
                connection.close()


def storm(*_):
    """Children that have all connections, for a moment."""
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def main(kind, host, port, seed, stop_file):
    over = threading.Event()
    workers = [Worker(kind, (host, int(port)), seed, number, over.is_set) for number in range(THREADS)]
    signal.signal(signal.SIGUSR1, storm)
    for worker in workers:
        threading.Thread(target=worker.run, daemon=True).start()
    done = False
    while not done:
        pause(0.2)
        done = all(worker.over for worker in workers)
        if os.path.exists(stop_file):
            over.set()
        sums = [sum(getattr(worker, name) for worker in workers) for name in ("operations", "bytes", "connections", "ends")]
        print("progress", *sums, flush=True)
        for worker in workers:
            if worker.wrong:
                print("WRONG", worker.wrong, flush=True)
                os._exit(1)
            if not worker.over and time.monotonic() - worker.moved > PATIENCE:
                print("HANG", kind, worker.kind.__dict__.get("name"), flush=True)
                # For whoever looks into it.
                pause(float(os.environ.get("CHAOS_LINGER", "0")))
                os._exit(2)
    print("done", flush=True)


def serve(host, port):
    listener = socket.create_server((host, int(port)), backlog=1024)

    def echo(connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            # Descriptors have run out.
            pause(0.05)
            continue
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


if sys.argv[1] == "files":
    for number in range(FILES):
        with open(os.path.join(sys.argv[2], str(number)), "wb") as file:
            file.write(page(number))
elif sys.argv[1] == "serve":
    serve(*sys.argv[2:])
else:
    main(*sys.argv[1:])
