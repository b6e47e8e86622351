"""MQTT by paho: mqtt_load.py PORT. Many subscribers of every quality of service get what several publishers send."""

import hashlib
import sys
import threading

from paho.mqtt.client import Client

PUBLISHERS, MESSAGES, SUBSCRIBERS, WAIT = 4, 200, 8, 100
SIZES = (1, 30, 500, 3000, 20_000, 150_000)


def payload(publisher, quality, number):
    seed = f"{publisher} {quality} {number}".encode()
    size = SIZES[number % len(SIZES)]
    return b"%d %d " % (publisher, number) + (hashlib.sha256(seed).digest() * (size // 32 + 1))[:size]


class Subscriber:
    """Hears everything of one quality of service, and sorts it by publisher."""

    def __init__(self, port, number, quality):
        self.quality = quality
        self.heard = {publisher: [] for publisher in range(PUBLISHERS)}
        self.missing = PUBLISHERS * MESSAGES
        self.ready, self.done = threading.Event(), threading.Event()
        self.client = Client(f"subscriber-{quality}-{number}")
        self.client.on_connect = lambda client, *_: client.subscribe(f"load/{quality}/+", quality)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = self.hear
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def hear(self, client, _, message):
        self.heard[int(message.topic.rsplit("/", 1)[1])].append(message.payload)
        self.missing -= 1
        if self.missing == 0:
            self.done.set()

    def check(self):
        assert self.done.wait(WAIT), f"quality {self.quality}: {self.missing} messages are missing"
        for publisher, heard in self.heard.items():
            right = [payload(publisher, self.quality, number) for number in range(MESSAGES)]
            assert heard == right, (self.quality, publisher)
        self.client.disconnect()
        self.client.loop_stop()


def publish(port, publisher):
    client = Client(f"publisher-{publisher}")
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(WAIT), "not connected"
    for number in range(MESSAGES):
        sent = [
            client.publish(f"load/{quality}/{publisher}", payload(publisher, quality, number), quality)
            for quality in range(3)
        ]
    for one in sent:
        one.wait_for_publish(WAIT)
        assert one.is_published(), one
    client.disconnect()
    client.loop_stop()


def main(port):
    subscribers = [Subscriber(port, number, quality) for number in range(SUBSCRIBERS) for quality in range(3)]
    for one in subscribers:
        assert one.ready.wait(WAIT), "not subscribed"
    publishers = [threading.Thread(target=publish, args=(port, number)) for number in range(PUBLISHERS)]
    for one in publishers:
        one.start()
    for one in subscribers:
        one.check()
    for one in publishers:
        one.join()
    print(len(subscribers), "subscribers,", PUBLISHERS * MESSAGES, "messages each")


main(int(sys.argv[1]))
