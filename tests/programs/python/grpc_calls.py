"""gRPC with bytes instead of protocol buffers: grpc_calls.py serve PORT, or call PORT. SIGTERM ends the server."""

import asyncio
import concurrent.futures
import hashlib
import signal
import sys
import threading

import grpc

UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Every channel makes a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
]
SIZES = (0, 1, 100, 5000, 70_000, 1_000_000)


def message(seed, size):
    block = hashlib.sha256(str(seed).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def reverse(request, context):
    return request[::-1]


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def sleep_until_cancelled(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait()
    return b""


def repeat(request, context):
    count, size = map(int, request.split())
    for number in range(count):
        yield message(number, size)


def digest(requests, context):
    state, count = hashlib.sha256(), 0
    for request in requests:
        state.update(request)
        count += 1
    return f"{count} {state.hexdigest()}".encode()


def echo(requests, context):
    yield from requests


def serve(port):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=UNLIMITED)
    handlers = {
        "Reverse": grpc.unary_unary_rpc_method_handler(reverse),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep_until_cancelled),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
        "Digest": grpc.stream_unary_rpc_method_handler(digest),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", handlers),))
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    server.start()
    done.wait()
    server.stop(5).wait()


def channel(port):
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED)


def unary(port, number):
    with channel(port) as way:
        call = way.unary_unary("/Test/Reverse")
        for turn in range(150):
            sent = message((number, turn), SIZES[turn % 4])
            assert call(sent, timeout=60) == sent[::-1]
        # Many calls of one connection at the same time, small and large ones.
        sent = [message((number, turn), SIZES[turn % len(SIZES)]) for turn in range(60)]
        calls = [call.future(one, timeout=60) for one in sent]
        for one, answer in zip(sent, calls):
            assert answer.result() == one[::-1]


def streams(port, number):
    with channel(port) as way:
        for count, size in ((2000, 10), (200, 5000), (10, 1_000_000)):
            answers = way.unary_stream("/Test/Repeat")(f"{count} {size}".encode(), timeout=60)
            for turn, answer in enumerate(answers):
                assert answer == message(turn, size)
            assert turn == count - 1
            sent = [message((number, turn), size) for turn in range(count)]
            right = f"{count} {hashlib.sha256(b''.join(sent)).hexdigest()}".encode()
            assert way.stream_unary("/Test/Digest")(iter(sent), timeout=60) == right
            assert list(way.stream_stream("/Test/Echo")(iter(sent), timeout=60)) == sent


def interruptions(port, number):
    """Calls that are given up in the middle leave the connection fit for the next ones."""
    with channel(port) as way:
        for turn in range(10):
            answers = way.unary_stream("/Test/Repeat")(b"100000 10000", timeout=60)
            assert [next(answers) for _ in range(turn)] == [message(one, 10_000) for one in range(turn)]
            answers.cancel()
            try:
                way.unary_unary("/Test/Fail")(f"number {turn}".encode(), timeout=60)
                raise AssertionError("no failure")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
                assert error.details() == f"number {turn}", error
            try:
                way.unary_unary("/Test/Sleep")(b"", timeout=0.02)
                raise AssertionError("no timeout")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            sent = message((number, turn), 30_000)
            assert way.unary_unary("/Test/Reverse")(sent, timeout=60) == sent[::-1]


def in_threads(what, port, count):
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(what, port, number) for number in range(count)]:
            done.result()
    print(what.__name__, "on", count, "connections")


async def asynchronous(port):
    async def one(way, number):
        sent = message(number, SIZES[number % len(SIZES)])
        assert await way.unary_unary("/Test/Reverse")(sent, timeout=60) == sent[::-1]

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as way:
        await asyncio.gather(*(one(way, number) for number in range(200)))
        talk = way.stream_stream("/Test/Echo")(timeout=60)
        for turn in range(300):
            sent = message(turn, SIZES[turn % 5])
            await talk.write(sent)
            assert await talk.read() == sent
        await talk.done_writing()
        assert await talk.read() == grpc.aio.EOF
    print("asynchronous")


if __name__ == "__main__":
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "serve":
        serve(port)
    else:
        in_threads(unary, port, 6)
        in_threads(streams, port, 4)
        in_threads(interruptions, port, 3)
        asyncio.run(asynchronous(port))
