"""What the page does with hostile text, without the token, and for a page of another site."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from selenium.webdriver.common.keys import Keys

from tests.support.api import Api
from tests.support.page_data import HOSTILE, finish, write_diabetes
from tests.support.waiting import wait_for


def test_names_and_logs_that_are_html_are_text(api, browser, tmp_path):
    file = tmp_path / f"{HOSTILE}.csv"
    browser.open("jobs")
    for path in (file, tmp_path / "b.csv"):
        browser.find("#data").send_keys(write_diabetes(path))
    browser.find("#upload button").click()
    browser.wait_for_text("#job .state", "queued")
    [job] = api.get("/jobs").json()["jobs"]
    api.claim(job["id"], worker="w")
    api.progress(job["id"], 1, log=f"{HOSTILE}\n")
    finish(api, job["id"], (file.name, "b.csv"), refused=HOSTILE)
    browser.wait_for_text("#job .state", "succeeded")
    browser.wait_for_text("#job", f"would refuse it: {HOSTILE}")
    browser.wait_for_text("#job table", file.name)
    browser.find("#job summary").click()
    browser.wait_for_text("#job pre", HOSTILE)
    assert not browser.all("img")


def test_the_page_asks_for_the_token_and_continues_with_it(tmp_path, broker, start_browser):
    with Api(tmp_path, broker, API_TOKEN="secret") as api:
        browser = start_browser(api.url)
        job = api.upload(headers={"Authorization": "Bearer secret"}).json()["id"]
        browser.open(f"jobs/{job}")
        browser.wait_for_text("#job .state", "queued")
        browser.find("#job .actions button").click()
        for token in ("wrong", "wröng", "secret"):
            wait_for(lambda: is_refused(browser), 20, "a refusal and the question")
            browser.find("#token-text").send_keys(token, Keys.ENTER)
        browser.wait_for_text("#job .state", "cancelled")
        assert browser.complaints() == []


def is_refused(browser) -> bool:
    """Whether the token is asked for after a call that was refused since the last question."""
    asks = browser.find("#token").is_displayed()
    return asks and any("401" in complaint for complaint in browser.complaints())


class OtherSite(BaseHTTPRequestHandler):
    """A page of another site, which makes a user's browser deploy a version."""

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


def test_a_page_of_another_site_changes_nothing(api, start_browser):
    assert api.version() == 1
    browser = start_browser(api.url)
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherSite) as server:
        server.target = api.url
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.driver.get(f"http://127.0.0.1:{server.server_port}/")
        wait_for(lambda: "another site" in browser.text("body"), 20, "the refusal")
        server.shutdown()
    assert api.get("/models/current").json()["version"] == 1
