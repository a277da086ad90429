"""A relay to compare the stream with: it moves as many messages as the services, and does no more.

    source ──┬──▶ [bench_features] 240 bytes ──▶ middle ──▶ [bench_y_pred] 50 bytes ──┬──▶ sink
             └──▶ [bench_y_true]    45 bytes ─────────────────────────────────────────┘

Durable quorum queues, delivery_mode 2, one message at a time, acknowledged by nobody: no JSON, no
CSV, no promise, so it ends when nothing comes any more. The sink prints how long it took from the
first whole row to the last, and rows.

    python bench/relay.py source|middle|sink AMQP_URL ROWS
"""

import sys
import time
from itertools import islice

import pika

QUEUES = {"bench_features": 240, "bench_y_true": 45, "bench_y_pred": 50}  # bytes of a body
QUORUM = {"x-queue-type": "quorum"}
QUIET_SECONDS = 10  # then the rest has got lost
KEPT = pika.BasicProperties(delivery_mode=2)


def source(channel, rows: int) -> None:
    for _ in range(rows):
        for queue in ("bench_features", "bench_y_true"):
            channel.basic_publish("", queue, bytes(QUEUES[queue]), KEPT)


def middle(channel, rows: int) -> None:
    coming = channel.consume("bench_features", auto_ack=True, inactivity_timeout=QUIET_SECONDS)
    for method, _, _ in islice(coming, rows):
        if method is None:
            return
        channel.basic_publish("", "bench_y_pred", bytes(QUEUES["bench_y_pred"]), KEPT)


def sink(channel, rows: int) -> None:
    came = dict.fromkeys(("bench_y_true", "bench_y_pred"), 0)

    def arrived(channel, method, properties, body):
        came[method.routing_key] += 1

    for queue in came:
        channel.basic_consume(queue, arrived, auto_ack=True)
    complete, end = 0, time.monotonic()
    while complete < rows and time.monotonic() < end + QUIET_SECONDS:
        channel.connection.process_data_events(1)
        if (now := min(came.values())) > complete:
            if not complete:
                start, first = time.monotonic(), now
            complete, end = now, time.monotonic()
    print(end - start, complete - first)


def main() -> None:
    role, url, rows = sys.argv[1:]
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True, arguments=QUORUM)
        print("ready", flush=True)
        {"source": source, "middle": middle, "sink": sink}[role](channel, int(rows))


if __name__ == "__main__":
    main()
