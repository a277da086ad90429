"""The views of jobs and models, in a real browser, on the real API, broker, model and worker."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.page_data import epochs, finish, write_diabetes
from tests.support.waiting import wait_for


def test_an_upload_becomes_a_model_that_serves_and_a_click_goes_back(
    api, broker, run, browser, tmp_path
):
    run("metric", broker, supervised=True)
    run("model", broker, supervised=True, API_URL=api.url)
    run("features", broker, supervised=True, FEATURES_DELAY_SECONDS=0.1)
    secret = str(api.data / "worker_secret")
    worker = {"API_URL": api.url, "WORKER_SECRET_FILE": secret, "TRAIN_BACKEND": "process"}
    run("retrain_worker", broker, **worker)
    browser.open("jobs")
    browser.find("#data").send_keys(write_diabetes(tmp_path / "diabetes.csv"))
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
    wait_for(lambda: browser.text("#version") == "1", 60, "predictions of version 1")
    wait_for(lambda: "v1" in browser.text("#error-chart"), 20, "a mark where it was deployed")
    browser.find("nav a[href='#models']").click()
    served = "Version {} is current. Replicas of model that serve it: 1 of 1"
    browser.wait_for_text("#serving", served.format(1))
    assert browser.all("a[href='/models/1/model.keras']")
    browser.find("[aria-label='Version 0'] button").click()
    browser.wait_for_text("#serving", served.format(0), 60)


def points(browser) -> list[int]:
    """Return how many points each line of the loss chart has."""
    script = (
        "return [...document.querySelectorAll('#job svg .value')]"
        ".map((line) => line.getAttribute('d').split('L').length)"
    )
    return browser.driver.execute_script(script)


def test_the_loss_chart_is_drawn_from_epochs_also_for_a_viewer_who_comes_late(api, browser):
    job = api.new_job()
    api.claim(job)
    browser.open(f"jobs/{job}")
    browser.wait_for_text("#job .state", "running")
    assert points(browser) == []
    api.progress(job, 1, epochs=epochs(1, 3), log="epoch 9/20  loss 7  val_loss 8\n")
    wait_for(lambda: points(browser) == [3, 3], 20, "the first epochs")
    browser.wait_for_text("#job p", "Epoch 3 of 20: loss 63.33, validation loss 66.67")
    browser.open(f"jobs/{job}")
    wait_for(lambda: points(browser) == [3, 3], 20, "the epochs before")
    api.progress(job, 1, epochs=epochs(4, 8))
    wait_for(lambda: points(browser) == [8, 8], 20, "the epochs since then")
    finish(api, job, ("a.csv", "b.csv"))
    browser.open(f"jobs/{job}")
    browser.wait_for_text("#job .state", "succeeded")
    wait_for(lambda: points(browser) == [8, 8], 20, "the epochs of a job that has ended")


def test_the_epochs_of_another_attempt_are_drawn_anew(api, browser):
    job = api.new_job()
    api.claim(job)
    browser.open(f"jobs/{job}")
    api.progress(job, 1, epochs=epochs(1, 5))
    wait_for(lambda: points(browser) == [5, 5], 20, "the first attempt")
    assert api.work("POST", f"{job}/1/failed", json={"reason": "lost", "retry": True}).ok
    api.claim(job)
    api.progress(job, 2, epochs=epochs(1, 2))
    wait_for(lambda: points(browser) == [2, 2], 20, "the second attempt")


def test_a_job_is_cancelled_with_the_keyboard_alone(api, browser):
    job = api.new_job()
    browser.open("live")
    wait_for(lambda: browser.find("#live").is_displayed(), 20, "the page")
    browser.tab_to("Jobs")
    browser.press(Keys.ENTER)
    browser.wait_for_text("#job-list", job)
    browser.tab_to(job)
    browser.press(Keys.ENTER)
    browser.wait_for_text("#job .state", "queued")
    browser.tab_to("Cancel this job")
    browser.press(Keys.SPACE)
    browser.wait_for_text("#job .state", "cancelled")
    assert api.job(job)["state"] == "cancelled"


DROP = """
const carrier = new DataTransfer();
for (const name of ["a.csv", "m.keras", "b.csv"]) carrier.items.add(new File(["x"], name));
document.querySelector("#upload").dispatchEvent(new DragEvent("drop", {dataTransfer: carrier}));
return ["data", "model"].map((id) => [...document.getElementById(id).files].map((f) => f.name));
"""


def test_dropped_files_go_where_they_belong(browser):
    browser.open("jobs")
    browser.wait_for_text("#upload", "Drop files")
    wait_for(lambda: browser.find("#jobs").is_displayed(), 20, "the view")
    assert browser.driver.execute_script(DROP) == [["a.csv", "b.csv"], ["m.keras"]]


def test_a_refused_upload_is_explained_in_a_sentence(api, browser, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    browser.open("jobs")
    browser.find("#data").send_keys(str(tmp_path / "a.csv"))
    browser.find("#upload button").click()
    wait_for(lambda: "row" in browser.text("#sending"), 20, "why")
    [complaint] = browser.complaints()
    assert "400" in complaint


@pytest.mark.parametrize("view", ["constructor", "toString/1"])
def test_an_unknown_address_shows_the_live_view(browser, view):
    browser.open(view)
    wait_for(lambda: browser.find("#live").is_displayed(), 20, "the live view")


def test_an_address_that_is_no_text_is_explained(browser):
    browser.open("jobs/%E0%A4%A")
    browser.wait_for_text("#problem", "there is no job")
    assert all("404" in complaint for complaint in browser.complaints())
