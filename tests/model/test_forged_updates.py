"""Any client of the broker may publish on `model_updates`: the content of a message is not read."""

import time

from tests.support.model_stage import assert_answers, deploy, notify

FORGED = {
    "nothing": b"",
    "a version that does not exist": b'{"version": 999999}',
    "a path": b'{"version": "../../etc/passwd"}',
    "an address": b'{"url": "http://localhost:1/model.tflite"}',
    "a pickle": b"\x80\x04\x95\x10",
    "depth": b"[" * 1_000_000,
    "8 MB": bytes(8_000_000),
}


def test_forged_messages_change_nothing(broker, start, api):
    start()
    deploy(api, broker, 1)
    for message in FORGED.values():
        notify(broker, message)
        assert_answers(broker, 1)
    time.sleep(2)
    assert api.serves(1) and not api.last_report()["refused"]
    assert api.downloads(999999) == 0


def test_a_flood_of_forged_messages_floods_neither_the_api_nor_the_predictions(
    broker, start, api, figure
):
    service = start()
    deploy(api, broker, 1)
    start, requests = time.monotonic(), len(api.requests)
    for _ in range(5):
        notify(broker, *[b"forged"] * 2000)
        notify(broker, *[bytes(4_000_000)] * 10)
        assert_answers(broker, 1, seconds=3)
    seconds, requests = time.monotonic() - start, len(api.requests) - requests
    service.remember_peak()
    figure(
        f"10,000 forged messages and 200 MB in {seconds:.0f} s: {requests} requests to the API,"
        f" model's peak {service.peak:.0f} MB"
    )
    assert requests <= seconds + 2
    assert service.process.poll() is None


def test_an_exchange_of_another_kind_is_an_error_at_the_start(broker, run, api):
    with broker.connect() as connection:
        connection.channel().exchange_delete("model_updates")
        connection.channel().exchange_declare("model_updates", "direct")
    try:
        service = run("model", broker, API_URL=api.url)
        assert service.process.wait(60) == 1
        assert "model_updates" in service.said()
    finally:
        with broker.connect() as connection:
            connection.channel().exchange_delete("model_updates")
