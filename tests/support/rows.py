"""Rows of the diabetes data: as messages, and as the CSV has to show them."""

import msgspec
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

data, target = load_diabetes(return_X_y=True)
linear = LinearRegression().fit(data, target)


def message(row_id: int | float | str, value: float | list[float]) -> bytes:
    """Return a body for `features`, `y_true` or `y_pred`."""
    return msgspec.json.encode({"id": row_id, "body": value})


def shown(x: list[float], y: float) -> tuple[str, str, str]:
    """Return y_true, y_pred and absolute_error of a row as cells, predicted by version 0."""
    predicted = float(linear.predict([x])[0])
    return str(y), f"{predicted:.2f}", f"{abs(y - predicted):.2f}"
