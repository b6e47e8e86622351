"""RabbitMQ by pika: rabbit_load.py PORT. Confirmed publishing to queues that are shared and to ones that each get everything."""

import concurrent.futures
import hashlib
import sys
import threading

import pika

PUBLISHERS, MESSAGES, SIZES = 4, 150, (0, 1, 200, 4000, 30_000, 131_072, 600_000)


def body(publisher, number):
    size = SIZES[number % len(SIZES)]
    return (hashlib.sha256(f"{publisher} {number}".encode()).digest() * (size // 32 + 1))[:size]


def connection(port):
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, socket_timeout=60, heartbeat=0))


def publish(port, publisher):
    with connection(port) as way:
        channel = way.channel()
        channel.confirm_delivery()
        for number in range(MESSAGES):
            properties = pika.BasicProperties(headers={"publisher": publisher, "number": number})
            for exchange, key in (("everybody", ""), ("", "shared")):
                channel.basic_publish(exchange, key, body(publisher, number), properties, mandatory=True)


def take(channel, queue, count):
    """That many messages, each checked and acknowledged, as pairs of publisher and number."""
    taken = []
    for method, properties, got in channel.consume(queue, inactivity_timeout=100) if count else ():
        assert method, f"{queue}: only {len(taken)} messages"
        pair = properties.headers["publisher"], properties.headers["number"]
        assert got == body(*pair), (queue, pair, len(got))
        channel.basic_ack(method.delivery_tag)
        taken.append(pair)
        if len(taken) == count:
            break
    channel.cancel()
    return taken


def hear_all(port, ready):
    with connection(port) as way:
        channel = way.channel()
        channel.basic_qos(prefetch_count=20)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "everybody")
        ready.wait()
        taken = take(channel, queue, PUBLISHERS * MESSAGES)
    for publisher in range(PUBLISHERS):
        assert [number for one, number in taken if one == publisher] == list(range(MESSAGES))
    return taken


def hear_some(port, ready):
    with connection(port) as way:
        channel = way.channel()
        channel.basic_qos(prefetch_count=10)
        ready.wait()
        return take(channel, "shared", PUBLISHERS * MESSAGES // 3)


def answer_directly(port):
    """Questions and answers without queues: a client's replies come by its own connection."""
    with connection(port) as asking, connection(port) as answering:
        server, client = answering.channel(), asking.channel()
        server.queue_declare("questions", exclusive=True)

        def answer(channel, method, properties, got):
            channel.basic_publish("", properties.reply_to, got[::-1])
            channel.basic_ack(method.delivery_tag)
            if got == b"end":
                channel.stop_consuming()

        server.basic_consume("questions", answer)
        thread = threading.Thread(target=server.start_consuming)
        thread.start()
        answers = client.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=100)
        next(client.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=0))
        for number in range(150):
            sent = b"end" if number == 149 else body("question", number % 5) + b"?"
            client.basic_publish("", "questions", sent, pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
            method, _, got = next(answers)
            assert method and got == sent[::-1], (number, got and len(got))
        thread.join()


def main(port):
    with connection(port) as way:
        channel = way.channel()
        channel.exchange_declare("everybody", "fanout")
        channel.queue_declare("shared", durable=False)
        ready = threading.Barrier(7)
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            all_hearers = [threads.submit(hear_all, port, ready) for _ in range(3)]
            some_hearers = [threads.submit(hear_some, port, ready) for _ in range(3)]
            ready.wait()
            publishers = [threads.submit(publish, port, number) for number in range(PUBLISHERS)]
            for one in publishers + all_hearers:
                one.result()
            shared = sorted(sum((one.result() for one in some_hearers), []))
        assert shared == [(publisher, number) for publisher in range(PUBLISHERS) for number in range(MESSAGES)]
        print(PUBLISHERS * MESSAGES, "messages, to everybody and shared;", channel.queue_delete("shared").method.message_count, "left")
    answer_directly(port)
    print("answers")


main(int(sys.argv[1]))
