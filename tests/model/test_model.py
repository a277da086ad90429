"""What `model` answers, on its own and on real brokers."""

import tracemalloc

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from model import model
from tests.support.bodies import ODD_IDS, bad_bodies
from tests.support.waiting import wait_for

data, target = load_diabetes(return_X_y=True)
linear = LinearRegression().fit(data, target)


def body(row_id, row) -> bytes:
    return msgspec.json.encode({"id": row_id, "body": row.tolist()})


def test_the_mean_absolute_error_over_all_rows_is_the_known_one():
    answers, _ = model.predict(linear, [body(n, row) for n, row in enumerate(data)])
    predicted = [msgspec.json.decode(answer)["body"] for answer in answers]
    assert np.mean(np.abs(target - predicted)) == pytest.approx(43.2774, abs=1e-4)


@pytest.mark.parametrize("kind", bad_bodies("features"))
def test_an_invalid_body_is_rejected_with_a_reason_and_the_others_are_answered(kind):
    bad = bad_bodies("features")[kind]
    answers, rejected = model.predict(linear, [body(1, data[0]), bad, body(2, data[1])])
    assert [msgspec.json.decode(answer)["id"] for answer in answers] == [1, 2]
    [(same, reason)] = rejected
    assert same == bad and reason


@pytest.mark.parametrize("row_id", ODD_IDS, ids=lambda row_id: ascii(row_id)[:30])
def test_an_id_goes_out_as_it_came(row_id):
    [answer], _ = model.predict(linear, [body(row_id, data[0])])
    answered = msgspec.json.decode(answer)["id"]
    assert answered == row_id and type(answered) is type(row_id)


def test_a_prediction_that_is_no_number_is_rejected():
    class Broken:
        def predict(self, rows):
            return np.array([np.nan, np.inf, 1.0])

    answers, rejected = model.predict(Broken(), [body(n, data[n]) for n in range(3)])
    assert len(answers) == 1
    assert [reason for _, reason in rejected] == [
        "the prediction for these features is nan",
        "the prediction for these features is inf",
    ]


def test_an_answer_carries_the_version_that_gave_it(any_broker, run):
    service = run("model", any_broker)
    wait_for(service.has_started, 30, "the model")
    any_broker.send("features", [body("one", data[0])])
    [(headers, answer)] = wait_for(lambda: any_broker.take("y_pred"), 30, "an answer")
    assert headers["model_version"] == 0
    assert msgspec.json.decode(answer)["body"] == pytest.approx(linear.predict(data[:1])[0])
    assert service.stop() == 0


def test_odd_headers_stop_no_answer(any_broker, run, odd_headers):
    service = run("model", any_broker)
    wait_for(service.has_started, 30, "the model")
    any_broker.send("features", [body(1, data[0])], odd_headers)
    any_broker.send("features", [body(2, data[0])])
    wait_for(lambda: any_broker.count("y_pred") == 2, 30, "both answers")


def test_a_body_of_any_length_is_rejected_in_little_memory():
    large = b'{"id": 1, "body": [' + b"0," * 5_000_000 + b"0]}"
    tracemalloc.start()
    try:
        [(_, reason)] = model.predict(linear, [large])[1]
        assert "at most" in reason and tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_it_ends_with_an_error_when_its_subscription_is_cancelled(any_broker, run):
    service = run("model", any_broker)
    wait_for(service.has_started, 30, "the model")
    with any_broker.connect() as connection:
        connection.channel().queue_delete("features")
    assert service.process.wait(10) == 1
    assert "cancelled our subscription" in service.said()


def test_a_row_whose_answer_found_no_queue_is_answered_by_the_next_process(any_broker, run):
    service = run("model", any_broker)
    wait_for(service.has_started, 30, "the model")
    with any_broker.connect() as connection:
        connection.channel().queue_delete("y_pred")
    any_broker.send("features", [body(1, data[0])])
    assert service.process.wait(10) == 1
    assert "no queue 'y_pred'" in service.said()
    run("model", any_broker)
    wait_for(lambda: any_broker.count("y_pred"), 30, "the answer")


def test_a_stop_ends_it_while_rows_wait(broker, run):
    first = run("model", broker)
    wait_for(first.has_started, 30, "the queues")
    first.stop()
    broker.send("features", [body(number, data[0]) for number in range(20_000)])
    service = run("model", broker)
    wait_for(lambda: "answered" in service.said(), 30, "the first answers")
    assert service.stop() == 0
    assert broker.count("features") > 0
