"""The page, in a real browser, on the real API, broker, model, metric and worker."""

import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
import requests
from selenium.webdriver.common.keys import Keys
from sklearn.datasets import load_diabetes

from tests.support.api import Api, result_files
from tests.support.browser import DESKTOP, PHONE, TABLET, started
from tests.support.waiting import wait_for

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def api(tmp_path, broker):
    with Api(tmp_path, broker) as api:
        yield api


@pytest.fixture
def browser(api):
    """A browser that asked nobody but the API, and had nothing to complain about."""
    with started(api.url) as browser:
        yield browser
        assert browser.complaints() == []
        assert all(url.startswith(api.url) for url in browser.asked() - {"about:blank"})


def diabetes(path) -> str:
    data = load_diabetes()
    lines = [",".join([*data.feature_names, "y"])]
    lines += [
        ",".join(map(repr, [*x, y]))
        for x, y in zip(data.data.tolist(), data.target.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines))
    return str(path)


def send_rows(broker, first: int, count: int, version: int, error: float) -> None:
    """Send both halves of rows, the predictions as by a version with this error."""
    ids = range(first, first + count)
    truths = [msgspec.json.encode({"id": id, "body": 100 + id % 50}) for id in ids]
    predictions = [msgspec.json.encode({"id": id, "body": 100 + id % 50 + error}) for id in ids]
    broker.send("y_true", truths)
    broker.send("y_pred", predictions, {"model_version": version})


def test_the_numbers_and_charts_move_by_themselves(api, broker, run, browser):
    run("metric", broker)
    browser.open("live")
    browser.wait_for_text("#error-chart", "No row has come yet")
    wait_for(lambda: browser.text("#halves") == "0", 20, "what metric counts")
    send_rows(broker, 0, 150, 0, 40)
    wait_for(lambda: browser.text("#error") == "40", 20, "the error of version 0")
    send_rows(broker, 1000, 150, 1, 30)
    wait_for(lambda: browser.text("#per-minute") == "300", 20, "the rows of version 1")
    assert browser.text("#version") == "1" and browser.text("#error") == "30"
    browser.wait_for_text("#versions", "version 1: mean error 30 on 150 rows")
    names = [mark.text for mark in browser.all("#error-chart .mark text")]
    assert "v1" in names and len(browser.all("#error-chart .mark")) == 2
    wait_for(lambda: len(browser.all("#histogram .bar")) == 40, 20, "the histogram")
    broker.send("y_true", [b'{"id": "alone", "body": 1}', b"no JSON"])
    wait_for(lambda: browser.text("#halves") == "1", 20, "the half that waits")
    wait_for(lambda: browser.text("#dead") == "1", 20, "the dead letter")


def test_what_drift_saw_is_listed_and_marked_and_nothing_is_said_while_there_is_nothing(
    api, broker, run, browser
):
    run("metric", broker)
    browser.open("live")
    wait_for(lambda: browser.text("#halves") == "0", 20, "what metric counts")
    send_rows(broker, 0, 20, 0, 40)
    wait_for(lambda: browser.text("#error") == "40", 20, "rows")
    assert not browser.find("#news-card").is_displayed()
    text = f"The error rose to 80. {HOSTILE}"
    for at in (datetime.now(UTC).isoformat(), "not a time"):
        news = {"at": at, "event": "drift", "id": 7, "version": 0, "job": None, "text": text}
        broker.send("drift", [msgspec.json.encode(news)])
    browser.wait_for_text("#news", HOSTILE)
    assert not browser.all("#news img")

    def marked() -> bool:  # once there are rows before and after it
        send_rows(broker, int(time.monotonic() * 1000), 1, 0, 40)
        return len(browser.all("#error-chart .mark.drift")) == 1

    wait_for(marked, 20, "a mark in the chart")


def test_an_upload_becomes_a_model_that_serves_and_a_click_goes_back(
    api, broker, run, browser, tmp_path
):
    run("metric", broker, supervised=True)
    run("model", broker, supervised=True, API_URL=api.url)
    run("features", broker, supervised=True, FEATURES_DELAY_SECONDS=0.1)
    secret = str(api.data / "worker_secret")
    run("retrain_worker", broker, API_URL=api.url, WORKER_SECRET_FILE=secret, TRAIN_IN="process")
    browser.open("jobs")
    browser.find("#data").send_keys(diabetes(tmp_path / "diabetes.csv"))
    browser.find("[name=deploy]").send_keys("always")
    browser.find("summary").click()
    browser.find("[name=epochs]").send_keys("6")
    browser.find("#upload button").click()
    browser.wait_for_text("#job h2", "Job ")
    browser.wait_for_text("#job .state", "succeeded", 180)
    browser.wait_for_text("#job", "deploy=always")
    browser.wait_for_text("#job table", "all")
    cells = [cell.text for cell in browser.all("#job tbody th, #job tbody td")]
    assert cells[:2] == ["all", "88"] and all(float(cell) > 0 for cell in cells[2:])
    assert len(browser.all("#job svg .value")) == 2  # both losses, of some epochs
    browser.find("nav a[href='#live']").click()
    wait_for(lambda: browser.text("#version") == "1", 60, "answers of version 1")
    wait_for(lambda: "v1" in browser.text("#error-chart"), 20, "a mark where it was deployed")
    browser.find("nav a[href='#models']").click()
    browser.wait_for_text("#serving", "Version 1 is to serve. 1 of 1")
    assert browser.all("a[href='/models/1/model.keras']")
    browser.find("[aria-label='Version 0'] button").click()
    browser.wait_for_text("#serving", "Version 0 is to serve. 1 of 1", 60)


def test_a_job_is_cancelled_with_the_keyboard_alone(api, browser):
    id = api.new_job()
    browser.open("live")
    wait_for(lambda: browser.find("#live").is_displayed(), 20, "the page")
    browser.tab_to("Jobs")
    browser.press(Keys.ENTER)
    browser.wait_for_text("#job-list", id)
    browser.tab_to(id)
    browser.press(Keys.ENTER)
    browser.wait_for_text("#job .state", "queued")
    browser.tab_to("Cancel this job")
    browser.press(Keys.SPACE)
    browser.wait_for_text("#job .state", "cancelled")
    assert api.job(id)["state"] == "cancelled"


def test_names_and_logs_that_are_html_are_text(api, browser, tmp_path):
    file = tmp_path / f"{HOSTILE}.csv"
    diabetes(file)
    browser.open("jobs")
    for path in (str(file), diabetes(tmp_path / "b.csv")):
        browser.find("#data").send_keys(path)
    browser.find("#upload button").click()
    browser.wait_for_text("#job .state", "queued")
    [job] = api.get("/jobs").json()["jobs"]
    api.claim(job["id"], worker="w")
    api.progress(job["id"], 1, log=f"{HOSTILE}\n")
    mae = {"challenger": 40.0, "champion": 44.0, "mean": 66.0}
    regions = [{"file": name, "rows": 9} | mae for name in (file.name, "b.csv")]
    scores = {"inputs": 10, "outputs": 1, "mae": mae, "regions": regions, "refused": HOSTILE}
    assert api.result(job["id"], 1, files=result_files(), scores=scores).ok
    browser.wait_for_text("#job .state", "succeeded")
    browser.wait_for_text("#job", f"would refuse it: {HOSTILE}")
    browser.wait_for_text("#job table", file.name)
    browser.find("#job summary").click()
    browser.wait_for_text("#job pre", HOSTILE)
    assert not browser.all("img")


DROP = """
const carrier = new DataTransfer();
for (const name of ["a.csv", "m.keras", "b.csv"]) carrier.items.add(new File(["x"], name));
document.querySelector("#upload").dispatchEvent(new DragEvent("drop", {dataTransfer: carrier}));
return ["data", "model"].map((id) => [...document.getElementById(id).files].map((f) => f.name));
"""


def test_dropped_files_go_where_they_belong(browser):
    browser.open("jobs")
    browser.wait_for_text("#upload", "Drop files")
    wait_for(lambda: browser.find("#jobs").is_displayed(), 20, "the part")
    assert browser.driver.execute_script(DROP) == [["a.csv", "b.csv"], ["m.keras"]]


def test_the_page_goes_on_by_itself_after_the_service_was_away(tmp_path, broker, run):
    with Api(tmp_path, broker) as api, started(api.url) as browser:
        run("metric", broker)
        browser.open("live")
        wait_for(lambda: browser.text("#halves") == "0", 20, "the numbers")
        api.process.stop()
        browser.wait_for_text("#problem", "does not answer")
        api.start_again()
        send_rows(broker, 0, 20, 0, 40)
        wait_for(lambda: browser.text("#error") == "40", 60, "rows")
        assert not browser.find("#problem").is_displayed()


def test_what_is_wrong_is_said_in_a_sentence(api, browser, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    browser.open("jobs")
    browser.find("#data").send_keys(str(tmp_path / "a.csv"))
    browser.find("#upload button").click()
    wait_for(
        lambda: browser.text("#sending").endswith("rows") or "row" in browser.text("#sending"),
        20,
        "why",
    )
    [complaint] = browser.complaints()
    assert "400" in complaint


def test_the_page_asks_for_the_token_and_goes_on_with_it(tmp_path, broker):
    with Api(tmp_path, broker, API_TOKEN="secret") as api, started(api.url) as browser:
        id = api.upload(headers={"Authorization": "Bearer secret"}).json()["id"]
        browser.open(f"jobs/{id}")
        browser.wait_for_text("#job .state", "queued")
        browser.find("#job .actions button").click()
        for token in ("wrong", "wröng", "secret"):
            wait_for(lambda: refused(browser), 20, "a refusal and the question")
            browser.find("#token-text").send_keys(token, Keys.ENTER)
        browser.wait_for_text("#job .state", "cancelled")
        assert browser.complaints() == []


def refused(browser) -> bool:
    """Tell whether a call was refused since this was asked last, and the token is asked for."""
    asks = browser.find("#token").is_displayed()
    return asks and any("401" in complaint for complaint in browser.complaints())


def test_an_address_that_somebody_typed_wrong_shows_a_part_all_the_same(api, browser):
    for part in ("constructor", "toString/1"):
        browser.open(part)
        wait_for(lambda: browser.find("#live").is_displayed(), 20, "a part")
    browser.open("jobs/%E0%A4%A")
    browser.wait_for_text("#problem", "there is no job")
    assert all("404" in complaint for complaint in browser.complaints())


class Stranger(BaseHTTPRequestHandler):
    """A page of another site, which has a user's browser deploy a version."""

    def do_GET(self):
        page = f"""<form method=post action={self.server.target}/models/0/deploy></form>
        <script>fetch("{self.server.target}/models/0/deploy", {{method: "POST", mode: "no-cors"}})
        .finally(() => document.forms[0].submit())</script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *about):
        pass


def test_a_page_of_another_site_changes_nothing(api):
    assert api.version() == 1
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server, started(api.url) as browser:
        server.target = api.url
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.driver.get(f"http://127.0.0.1:{server.server_port}/")
        wait_for(lambda: "another site" in browser.text("body"), 20, "the refusal")
        server.shutdown()
    assert api.get("/models/current").json()["version"] == 1


@pytest.mark.parametrize("width", [PHONE, TABLET, DESKTOP])
def test_the_page_is_as_wide_as_the_window(api, broker, run, browser, width):
    run("metric", broker)
    api.version()
    browser.look(width)
    for part, there in (("live", "#error"), ("jobs/ID", "#job table"), ("models", "#model-list")):
        browser.open(part.replace("ID", api.get("/jobs").json()["jobs"][0]["id"]))
        wait_for(lambda there=there: browser.text(there), 20, part)
        wide = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide == width, part


def test_a_page_that_is_hidden_or_closed_costs_nothing(api, broker, run, browser):
    run("metric", broker)
    looks = [lambda: browser.open("live"), browser.show, lambda: browser.open("live")]
    leaves = [
        browser.hide,
        lambda: browser.open("models"),
        lambda: browser.driver.get("about:blank"),
    ]
    for look, leave in zip(looks, leaves, strict=True):
        look()
        wait_for(lambda: follows(broker), 30, "the connection that follows")
        leave()
        wait_for(lambda: not follows(broker), 30, "its end")


def follows(broker) -> bool:
    return "retrain_api, page" in connections(broker)


def connections(broker) -> set[str]:
    """Return the names of the connections that RabbitMQ has, as of some seconds ago."""
    url = f"http://127.0.0.1:{broker.management}/api/connections"
    with requests.Session() as session:
        session.trust_env = False
        told = session.get(url, auth=("guest", "guest"), timeout=30).json()
    return {one.get("client_properties", {}).get("connection_name") for one in told}
