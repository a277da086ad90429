"""Contracts of messages: what is accepted, and with what reason the rest is refused."""

import msgspec
import pytest

from common import messages
from common.artifacts import Golden
from common.messages import INVALID, DriftEvent, FeatureRow, TargetValue, encode
from tests.support.bodies import ODD_IDS

TEN = [0.5] * 10


@pytest.mark.parametrize("row_id", [*ODD_IDS, 1, 1765912012.233366])
def test_an_id_stays_as_it_came(row_id):
    body = encode(FeatureRow(row_id, TEN))
    assert messages.decode_feature_row(body).id == row_id
    assert msgspec.json.decode(body)["id"] == row_id


@pytest.mark.parametrize("row_id", ["", "x" * 256, None, [], True])
def test_other_ids_are_refused(row_id):
    with pytest.raises(INVALID):
        messages.decode_feature_row(encode({"id": row_id, "body": TEN}))


@pytest.mark.parametrize("body", [[0.5] * 9, [0.5] * 11, [1e301] * 10, ["1"] * 10, None, 1.0])
def test_a_row_has_ten_numbers(body):
    with pytest.raises(INVALID):
        messages.decode_feature_row(encode({"id": 1, "body": body}))


def test_a_row_of_many_bytes_is_refused_before_it_is_decoded():
    with pytest.raises(INVALID, match="at most 65536 bytes"):
        messages.decode_feature_row(b" " * 70_000)


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b"[" * 5000, b'{"id": 1, "body": NaN}'])
def test_nonsense_is_invalid(body):
    with pytest.raises(INVALID):
        messages.decode_target_value(body)


def test_a_target_value_is_one_number():
    assert messages.decode_target_value(b'{"id": "a", "body": 3}') == TargetValue("a", 3.0)


@pytest.mark.parametrize(("old", "new"), messages.RENAMED_EVENTS.items())
def test_an_event_from_before_has_its_present_name(old, new):
    event = DriftEvent("now", old, 1.5, 0, None, "text")
    assert messages.decode_event(encode(event)) == DriftEvent("now", new, 1.5, 0, None, "text")


@pytest.mark.parametrize(
    ("header", "version"),
    [(3, 3), ("3", "3"), ("x" * 300, "x" * 255), (None, None), (1.5, None), ([], None)],
)
def test_a_model_version_is_a_number_or_a_text(header, version):
    assert messages.model_version({"model_version": header}) == version


@pytest.mark.parametrize(
    "golden",
    [
        {"rows": [], "predictions": []},
        {"rows": [[1.0]], "predictions": [1.0, 2.0]},
        {"rows": [[1.0], [1.0, 2.0]], "predictions": [1.0, 2.0]},
        {"rows": [[1.0]] * 33, "predictions": [1.0] * 33},
        {"rows": [["a"]], "predictions": [1.0]},
        {"rows": [[1e301]], "predictions": [1.0]},
    ],
)
def test_golden_rows_have_one_width_and_one_prediction_each(golden):
    with pytest.raises(INVALID):
        msgspec.json.decode(encode(golden), type=Golden)
