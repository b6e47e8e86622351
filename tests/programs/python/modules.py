"""Modules of Python's library that use sockets in their own ways, with both ends in this interpreter's processes."""

import http.client
import http.server
import multiprocessing
import multiprocessing.connection
import selectors
import socket
import socketserver
import subprocess
import sys
import threading
import xmlrpc.client
import xmlrpc.server


def socket_server():
    class Upper(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upper) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(server.server_address, timeout=60) as client, client.makefile("rw") as file:
            for number in range(300):
                file.write(f"line {number}\n")
                file.flush()
                assert file.readline() == f"LINE {number}\n"
        server.shutdown()
    print("socketserver, makefile")


def forking_server():
    class Echo(socketserver.BaseRequestHandler):
        def handle(self):
            # The child has copies of the clients' sockets too, so their close is no end for it.
            while (data := self.request.recv(5000)) != b"quit":
                self.request.sendall(data)

    with socketserver.ForkingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number in range(10):
            with socket.create_connection(server.server_address, timeout=60) as client:
                for size in (1, 100, 4000, 50_000):
                    data = bytes([number]) * size
                    client.sendall(data)
                    got = b""
                    while len(got) < size:
                        got += client.recv(size)
                    assert got == data
                client.sendall(b"quit")
        server.shutdown()
    print("ForkingTCPServer")


def http_keep_alive():
    class Hello(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))[::-1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        for number in range(100):
            body = bytes(range(256)) * (1 + number)
            client.request("POST", "/", body)
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, body[::-1])
        client.close()
        server.shutdown()
    print("http, keep-alive")


def xml_rpc():
    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
    server.register_function(lambda left, right: left + right, "add")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        assert [proxy.add(number, 1) for number in range(50)] == list(range(1, 51))
    server.shutdown()
    print("xmlrpc")


def worker(address):
    with multiprocessing.connection.Client(address, authkey=b"key") as connection:
        while (value := connection.recv()) is not None:
            connection.send(value * 2)


def connections():
    with multiprocessing.connection.Listener(("127.0.0.1", 0), authkey=b"key") as listener:
        process = multiprocessing.get_context("spawn").Process(target=worker, args=(listener.address,))
        process.start()
        with listener.accept() as connection:
            for number in range(200):
                connection.send([number] * number)
                assert connection.recv() == [number] * number * 2
            connection.send(None)
        process.join()
    print("multiprocessing", process.exitcode)


def selector():
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as chosen:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        servers = [listener.accept()[0] for _ in clients]
        for end in servers:
            end.setblocking(False)
            chosen.register(end, selectors.EVENT_READ)
        for turn in range(50):
            for client in clients:
                client.sendall(b"x" * (turn + 1))
            missing = len(clients) * (turn + 1)
            while missing:
                for key, _ in chosen.select():
                    data = key.fileobj.recv(1000)
                    key.fileobj.sendall(data)
                    missing -= len(data)
            for client in clients:
                assert client.recv(turn + 1, socket.MSG_WAITALL) == b"x" * (turn + 1)
        for end in clients + servers:
            end.close()
    print("selectors")


def inherited():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), timeout=60) as client:
            end, _ = listener.accept()
            with end:
                for _ in range(30):
                    client.sendall(b"ping")
                    assert end.recv(4, socket.MSG_WAITALL) == b"ping"
                    end.sendall(b"pong")
                    assert client.recv(4, socket.MSG_WAITALL) == b"pong"
                code = "import sys; sys.stdout.write(sys.stdin.readline() + 'done\\n')"
                child = subprocess.Popen([sys.executable, "-c", code], stdin=end, stdout=end)
            client.sendall(b"hello\n")
            got = b""
            while len(got) < 11:
                got += client.recv(100)
            assert got == b"hello\ndone\n", got
            print("subprocess on a socket", child.wait())


if __name__ == "__main__":
    socket_server()
    forking_server()
    http_keep_alive()
    xml_rpc()
    connections()
    selector()
    inherited()
