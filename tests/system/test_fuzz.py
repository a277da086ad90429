"""Bytes from outside, as nobody would write them: each parser takes them or refuses them."""

import csv
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retrain_api import handed_in, table
from tests.support.api import Api
from tests.support.environment import SOAK, load

dead = load("tools/dead_letters.py")
metric = load("metric/metric.py")
store = load("metric/store.py")
model = load("model/model.py")
serving = load("model/serving.py")
plot = load("plot/plot.py")
worker = load("retrain_worker/retrain_worker.py")
outputs = load("retrain_worker/outputs.py")

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
    def predict(self, rows):
        return rows.sum(axis=1)


@given(BODIES)
@example(b'{"id":"\\r","body":1}')
def test_metric_joins_a_body_or_refuses_it_with_a_reason(body):
    halves, refused = metric.read([("y_true", None, body), ("y_pred", 1, body)])
    joined, _, _ = metric.join({}, halves)
    assert (len(halves), len(joined), len(refused)) in ((2, 1, 0), (0, 0, 2))
    assert all(headers["reason"] for headers, _ in refused)
    for row in joined:
        record = row.record().decode()
        [cells] = csv.reader(io.StringIO(record, newline=""), strict=True)
        assert cells[0] == str(row.id) and len(cells) == 4 and math.isfinite(float(cells[3]))
        assert len(msgspec.json.encode(row)) < 2**16  # far below a frame


@given(BODIES | ROWS)
def test_model_answers_a_body_or_refuses_it_with_a_reason(body):
    answers, refused = model.answer(Sum(), [body])
    assert len(answers) + len(refused) == 1
    assert all(reason for _, reason in refused)
    for answer in answers:
        assert metric.read([("y_pred", 0, answer)])[0]


@given(st.dictionaries(st.text(), VALUES), VALUES)
def test_headers_of_any_kind_are_told_or_left_out(headers, version):
    assert isinstance(dead.origin(headers), str) and isinstance(dead.reason(headers), str)
    assert not {"reason", "queue"} & set(dead.before_death(headers))
    about = type("About", (), {"headers": headers | {"model_version": version}})
    assert isinstance(metric.version_in(about), int | str | None)


LINES = st.sampled_from(
    ["1,2,3.0,1.0", '"a,b",1,2.00,1.00', '"a""b\nc",1,2,1', '"', "a note", "1,2,3", "1,2,3,nan", ""]
)
FILES = st.binary(max_size=200) | st.lists(LINES).map(lambda lines: "\n".join(lines).encode())


@given(FILES, st.integers(0, 200))
def test_plot_counts_the_same_however_a_file_is_cut_into_pieces(content, cut):
    errors, foreign, used = plot.take(content)
    assert 0 <= used <= len(content)
    assert all(math.isfinite(error) and error >= 0 for error in errors)
    first, skipped, part = plot.take(content[:cut])
    more, skipped_too, rest = plot.take(content[part:])
    assert (first + more, skipped + skipped_too, part + rest) == (errors, foreign, used)


@given(FILES)
def test_metric_takes_over_any_file_that_stands_where_its_csv_was(content):
    found = list(store.records(io.BytesIO(content)))
    ends = [end for end, _ in found]
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
    folder = tmp_path_factory.mktemp("csv")
    names = b"" if content.startswith(b"\xef\xbb\xbf") else b"a,b,y\n"
    for text in (content, names + content):
        try:
            about = table.prepare([("a.csv", io.BytesIO(text))], folder)
            assert about["rows"] + about["hold_out_rows"] >= table.FEWEST_ROWS
        except table.Refused as refused:
            assert len(str(refused)) > 20 and "\n" not in str(refused)


KINDS = [outputs.Golden, outputs.Training, outputs.Scores, outputs.Progress]
KEYS = ["rows", "predictions", "inputs", "outputs", "mae", "regions", "epoch", "loss", "seconds"]
LEFT = st.binary() | st.dictionaries(st.sampled_from(KEYS), VALUES).map(as_json)


@given(LEFT, st.sampled_from(KINDS))
def test_what_a_job_left_is_parsed_or_unusable(content, kind):
    try:
        read = outputs.parse(kind, "x.json", outputs.File(len(content), [content]))
        assert msgspec.json.decode(msgspec.json.encode(read), type=kind) == read
    except outputs.Unusable as unusable:
        assert str(unusable).isprintable()


@given(st.binary() | st.text().map(str.encode), st.integers(1, 50))
def test_no_text_of_a_job_commands_a_terminal(raw, most):
    assert outputs.plain(raw, most).isprintable() and len(outputs.plain(raw, most)) <= most
    assert all(c.isprintable() or c in "\n\t" for c in outputs.log_text(raw))


@given(VALUES | st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("scores", "training", "containers", "compared_with"), VALUES)))  # fmt: skip
def test_a_report_is_taken_or_refused(value):
    try:
        assert as_json(handed_in.report(value))
    except ValueError as error:
        assert str(error)


@given(LEFT)
def test_golden_rows_are_taken_or_refused(tmp_path_factory, content):
    path: Path = tmp_path_factory.mktemp("golden") / "golden.json"
    path.write_bytes(content)
    for read in (lambda: serving.read(path), lambda: handed_in.golden(io.BytesIO(content), 10)):
        try:
            read()
        except ValueError as error:
            assert str(error)


@given(BODIES | st.text().map(lambda id: as_json({"id": id})))
def test_a_message_to_the_workers_names_a_harmless_id_or_is_refused(body):
    try:
        assert re.fullmatch(r"[\w-]{1,64}", worker.decode(body).id, re.ASCII)
    except (ValueError, RecursionError) as error:
        assert str(error)


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        api.version()
        yield api


def test_the_api_is_what_it_says_of_itself_whatever_it_is_sent(api, figure):
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
