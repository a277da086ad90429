"""Bytes from outside, as nobody would write them: each parser accepts or refuses them."""

import csv
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.artifacts import Epoch, Golden, Scores, Training
from common.consuming import Message
from common.messages import INVALID, decode_job, decode_target_value, model_version
from common.worker_api import FailureReport, ProgressReport, ReplicaStatus, ResultReport
from metric import metric
from metric.csv_file import CsvFile, format_record
from model import model
from plot import csv_reader
from retrain_api.errors import InvalidDatasetError
from retrain_api.ingest.dataset import MIN_ROWS, prepare
from retrain_api.routes.decoding import check_golden, decode
from retrain_worker.progress import read_log
from retrain_worker.runners.outputs import (
    InvalidOutputError,
    parse_json,
    printable_line,
    printable_log,
)
from retrain_worker.runners.protocol import FileStream
from serving.trial import read_golden
from tests.support.api import Api
from tests.support.environment import SOAK
from tools.dead_letters import Letter

pytestmark = pytest.mark.slow

settings.register_profile(
    "ours",
    deadline=None,  # machines are shared
    max_examples=300 * SOAK,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("ours")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=11) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
IDS = st.integers() | NUMBERS | st.text(min_size=1)


def as_json(value) -> bytes:
    return msgspec.json.encode(value)


def objects(**values) -> st.SearchStrategy[bytes]:
    """Return JSON objects that have some of these keys, and perhaps others."""
    some = st.fixed_dictionaries({}, optional=values)
    return st.builds(lambda known, more: as_json(more | known), some, st.just({}) | others)


others = st.dictionaries(st.text(), VALUES, max_size=3)
BODIES = st.binary() | VALUES.map(as_json) | objects(id=IDS | VALUES, body=NUMBERS | VALUES)
ROWS = objects(id=IDS | VALUES, body=st.lists(NUMBERS, min_size=9, max_size=11) | VALUES)


class Sum:
    inputs, outputs = 10, 1

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows.sum(axis=1)


@given(BODIES)
@example(b'{"id":"\\r","body":1}')
def test_metric_joins_a_body_or_refuses_it_with_a_reason(body):
    messages = [Message(1, "y_true", {}, body), Message(2, "y_pred", {"model_version": 1}, body)]
    values, rejected = metric.parse(messages)
    joined, _, _ = metric.join({}, values)
    assert (len(values), len(joined), len(rejected)) in ((2, 1, 0), (0, 0, 2))
    assert all(reason for _, reason in rejected)
    for row in joined:
        record = format_record(row, 2).decode()
        [cells] = csv.reader(io.StringIO(record, newline=""), strict=True)
        assert cells[0] == str(row.id) and len(cells) == 4 and math.isfinite(float(cells[3]))
        assert len(msgspec.json.encode(row)) < 1 << 16  # far below a frame


@given(BODIES | ROWS)
def test_model_answers_a_body_or_refuses_it_with_a_reason(body):
    answers, rejected = model.predict(Sum(), [body])
    assert len(answers) + len(rejected) == 1
    assert all(reason for _, reason in rejected)
    for answer in answers:
        assert decode_target_value(answer)


@given(st.dictionaries(st.text(), VALUES), VALUES)
def test_headers_of_any_kind_are_shown_or_left_out(headers, version):
    letter = Letter(1, 1, headers, b"")
    assert isinstance(letter.origin, str) and isinstance(letter.reason, str)
    assert not {"reason", "queue"} & set(letter.original_headers)
    assert isinstance(model_version(headers | {"model_version": version}), int | str | None)


LINES = st.sampled_from(
    ["1,2,3.0,1.0", '"a,b",1,2.00,1.00', '"a""b\nc",1,2,1', '"', "a note", "1,2,3", "1,2,3,nan", ""]
)
FILES = st.binary(max_size=200) | st.lists(LINES).map(lambda lines: "\n".join(lines).encode())


@given(FILES, st.integers(0, 200))
def test_plot_counts_the_same_however_a_file_is_cut_into_pieces(content, cut):
    errors, foreign, used = csv_reader.parse(content)
    assert 0 <= used <= len(content)
    assert all(math.isfinite(error) and error >= 0 for error in errors)
    first, skipped, part = csv_reader.parse(content[:cut])
    more, skipped_too, rest = csv_reader.parse(content[part:])
    assert (first + more, skipped + skipped_too, part + rest) == (errors, foreign, used)


@given(FILES)
def test_metric_adopts_any_file_in_the_place_of_its_csv(tmp_path_factory, content):
    path: Path = tmp_path_factory.mktemp("metric") / "metric_log.csv"
    path.write_bytes(content)
    ends = [record.end for record in CsvFile(path).records()]
    assert ends == sorted(set(ends)) and all(0 < end <= len(content) for end in ends)


CELLS = st.sampled_from(["1", "-2.5", "3e2", '"4"', "x", "", "1,5", "nan", "1e39", "я", '"', " 7 "])
CSVS = st.builds(
    lambda rows, delimiter, end: end.join(map(delimiter.join, rows)),
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=30),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r"]),
)


@given(st.binary(max_size=300) | CSVS.map(str.encode) | CSVS.map(lambda t: t.encode("cp1251")))
def test_a_csv_is_read_or_refused_in_a_sentence(tmp_path_factory, content):
    folder, sentences = tmp_path_factory.mktemp("csv"), []
    names = b"" if content.startswith(b"\xef\xbb\xbf") else b"a,b,y\n"
    for text in (content, names + content):
        try:
            dataset = prepare([("a.csv", io.BytesIO(text))], folder)
            assert dataset.rows + dataset.hold_out_rows >= MIN_ROWS
        except InvalidDatasetError as error:
            sentences.append(str(error))
    assert all(len(sentence) > 20 and "\n" not in sentence for sentence in sentences)


KINDS = [Golden, Training, Scores, Epoch]
KEYS = ["rows", "predictions", "inputs", "outputs", "mae", "regions", "epoch", "loss", "seconds"]
OUTPUTS = st.binary() | st.dictionaries(st.sampled_from(KEYS), VALUES).map(as_json)


@given(OUTPUTS, st.sampled_from(KINDS))
def test_an_output_of_a_job_is_parsed_or_invalid(content, kind):
    try:
        parsed = parse_json(kind, "x.json", FileStream(len(content), [content]))
    except InvalidOutputError as error:
        reason = str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(parsed), type=kind) == parsed
        return
    assert reason.isprintable()


@given(st.binary() | st.text().map(str.encode), st.integers(1, 50))
def test_no_text_of_a_job_steers_a_terminal(raw, length):
    line = printable_line(raw, length)
    assert line.isprintable() and len(line) <= length
    for text in (printable_log(raw), read_log(raw).text):
        assert all(c.isprintable() or c in "\n\t" for c in text)


REPORTS = (ResultReport, ProgressReport, FailureReport, ReplicaStatus)
FIELDS = ("scores", "training", "containers", "compared_with", "epochs", "log", "reason", "serves")


@given(
    st.binary()
    | (VALUES | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))).map(as_json),
    st.sampled_from(REPORTS),
)
def test_a_report_is_accepted_or_refused_with_a_sentence(body, kind):
    try:
        sentence = as_json(decode(body, kind)).decode()
    except ValueError as error:
        sentence = str(error)
    assert sentence


@given(OUTPUTS)
def test_golden_rows_are_accepted_or_refused_with_a_sentence(tmp_path_factory, content):
    path: Path = tmp_path_factory.mktemp("golden") / "golden.json"
    path.write_bytes(content)
    for read in (lambda: read_golden(path), lambda: check_golden(io.BytesIO(content), 10)):
        try:
            read()
            sentence = "accepted"
        except ValueError as error:
            sentence = str(error)
        assert sentence


@given(BODIES | st.text().map(lambda job_id: as_json({"id": job_id})))
def test_a_message_to_the_workers_has_a_harmless_id_or_is_refused(body):
    try:
        job_id = decode_job(body).id
    except INVALID:
        return
    assert re.fullmatch(r"[\w-]{1,64}", job_id, re.ASCII)


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        api.version()
        yield api


def test_the_api_is_as_it_is_described_whatever_it_is_sent(api, figure):
    """By the description at /openapi.json: no 500, and each answer as it is described there."""
    tool = [Path(sys.executable).parent / "schemathesis", "run", f"{api.url}/openapi.json"]
    how = ["--max-examples", str(40 * SOAK), "--no-color", "--warnings", "off"]
    how += ["--exclude-checks", "positive_data_acceptance"]  # a CSV made of noise is refused
    how += ["--exclude-path-regex", "/events$"]  # streams that go on as long as somebody listens
    done = subprocess.run([*tool, *how], capture_output=True, text=True, cwd=api.data)
    assert done.returncode == 0, done.stdout
    sent = int(re.search(r"(\d+) generated", done.stdout)[1])
    figure(f"schemathesis: {sent} requests by the description of the API, none answered by a 500")
    assert sent >= 500 * SOAK and api.process.process.poll() is None
