"""A network predicts what it predicted where it was made, and quickly; no bad file passes."""

import time

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from serving.builtin import Builtin
from serving.network import Network, UnservableError, load
from tests.support.networks import ROWS, networks

pytestmark = pytest.mark.tensorflow


def network(name: str) -> Network:
    return load(networks() / f"{name}.tflite")


@pytest.mark.parametrize("name", ["first", "second", "convolution", "vector", "table"])
@pytest.mark.parametrize("size", [1, 7, 100, 442])
def test_it_predicts_what_was_predicted_where_the_network_was_made(name, size):
    model = network(name)
    batches = [model.predict(ROWS[n : n + size]) for n in range(0, len(ROWS), size)]
    expected = np.load(networks() / f"{name}.npy")
    assert np.concatenate(batches) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (model.inputs, model.outputs, batches[0].dtype) == (10, 1, np.float64)


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", ">f8"])
def test_it_takes_numbers_of_any_kind(kind):
    rows = np.arange(-10, 10).reshape(2, 10)
    assert (network("first").predict(rows.astype(kind)) == network("first").predict(rows)).all()


def test_it_takes_rows_that_are_not_contiguous_and_none_at_all():
    model, wide = network("first"), np.hstack([ROWS, ROWS])
    assert (model.predict(wide[:, :10]) == model.predict(ROWS)).all()
    assert model.predict(np.empty((0, 10))).shape == (0,)


def test_a_row_on_which_the_network_fails_gives_nan_and_the_others_are_predicted():
    rows = np.zeros((4, 10))
    rows[:, 0] = 1, 99, 3, -1
    assert str(network("table").predict(rows).tolist()) == "[1.0, nan, 3.0, nan]"


def test_a_number_that_is_too_large_for_it_does_not_raise():
    assert network("first").predict(np.full((2, 10), 1e300)).shape == (2,)


def microseconds(predict, batches) -> float:
    """Return the median time of a row over many batches."""
    took = []
    for rows in batches * 200:
        start = time.perf_counter()
        predict(rows)
        took.append((time.perf_counter() - start) / len(rows))
    return float(np.median(took) * 1e6)


def test_a_row_takes_at_most_5_microseconds_in_batches_of_100(figure):
    model, builtin = network("first"), Builtin()
    same, changing = [ROWS[:100]] * 2, [ROWS[:100], ROWS[:99]]
    took = microseconds(model.predict, same), microseconds(model.predict, changing)
    figure(
        f"a row in batches of 100: network of 64 and 64 units {took[0]:.2f} µs, {took[1]:.2f} µs"
        f" while the size changes; version 0 {microseconds(builtin.predict, same):.2f} µs"
    )
    assert max(took) < 5


def test_version_0_is_the_linear_model_of_the_diabetes_data():
    model = Builtin()
    assert (model.inputs, model.outputs) == (10, 1)
    errors = np.abs(model.predict(ROWS) - load_diabetes().target)
    assert np.mean(errors) == pytest.approx(43.2774, abs=1e-4)


BAD = {
    "two inputs": "it has 2 inputs and 1 outputs",
    "two outputs": "it has 1 inputs and 2 outputs",
    "integers": "it works with int32, not with float32",
    "pictures": "it takes (rows, 10, 5), not (rows, columns)",
    "two numbers": "it gives 6 numbers for 3 rows",
}


@pytest.mark.parametrize("name", BAD)
def test_a_network_that_does_not_give_one_number_a_row_is_refused_with_a_sentence(name):
    with pytest.raises(UnservableError) as refused:
        network(name)
    assert BAD[name] in str(refused.value)
