"""A memcached client that checks what it gets: cache_client.py ADDRESS PORT CONNECTIONS."""

import socket
import sys
import threading

ADDRESS, PORT, CONNECTIONS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ROUNDS = 12
failed = []


def value(number, turn):
    size = 1 + (turn * turn * 37 * 9) % 90000
    unit = b"%d:%d;" % (number, turn)
    return (unit * (size // len(unit) + 1))[:size]


class Connection:
    def __init__(self, number):
        self.number = number
        self.socket = socket.create_connection((ADDRESS, PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def expect(self, line):
        got = self.file.readline()
        assert got == line, (line, got)

    def set(self, turn):
        data = value(self.number, turn)
        self.socket.sendall(b"set k%d-%d 7 0 %d\r\n" % (self.number, turn, len(data)) + data + b"\r\n")
        self.expect(b"STORED\r\n")

    def take(self, turn):
        data = value(self.number, turn)
        self.expect(b"VALUE k%d-%d 7 %d\r\n" % (self.number, turn, len(data)))
        assert self.file.read(len(data) + 2) == data + b"\r\n", (self.number, turn)

    def get(self, turn):
        self.socket.sendall(b"get k%d-%d\r\n" % (self.number, turn))
        self.take(turn)
        self.expect(b"END\r\n")

    def get_all(self):
        keys = b" ".join(b"k%d-%d" % (self.number, turn) for turn in range(ROUNDS))
        self.socket.sendall(b"get " + keys + b"\r\n")
        for turn in range(ROUNDS):
            self.take(turn)
        self.expect(b"END\r\n")


def work(number):
    try:
        connection = Connection(number)
        for turn in range(ROUNDS):
            connection.set(turn)
            connection.get(turn)
        connection.get_all()
        connection.socket.close()
    except BaseException as error:
        failed.append(error)
        raise


threads = [threading.Thread(target=work, args=(number,)) for number in range(CONNECTIONS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(CONNECTIONS, "connections,", len(failed), "failed")
sys.exit(1 if failed else 0)
