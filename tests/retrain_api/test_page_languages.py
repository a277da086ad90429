"""The page in English and Russian: its table of texts, and each view at each width."""

import re

import pytest

from tests.support.browser import DESKTOP, PHONE, TABLET
from tests.support.page_data import epochs, finish, send_event, send_rows
from tests.support.waiting import wait_for

PLURALS = {"en": {"one", "other"}, "ru": {"one", "few", "many"}}  # Unicode CLDR, of whole numbers
STATES = {"queued", "running", "succeeded", "failed", "cancelled"}
EVENTS = {"drift_detected", "job_submitted", "deployed", "confirmed", "not_promoted", "abandoned"}
EVENTS |= {"recovered", "inconclusive", "rolled_back", "failed", "cancelled", "refused"}
NAMES = {"features", "y_true", "y_pred", "retrain_jobs", "dead", "model", "CSV", "API_TOKEN"}
NAMES |= {"id", "date", "keras", "tflite", "csv", "MAE"}  # not words of a language

WORDS = """
const texts = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode())
  if (!walker.currentNode.parentElement.closest("noscript, pre"))
    texts.push(walker.currentNode.textContent);
for (const name of ["aria-label", "placeholder"])
  for (const element of document.querySelectorAll(`[${name}]`))
    texts.push(element.getAttribute(name));
return texts.join(" ");
"""


def placeholders(text: str | dict[str, str]) -> set[str]:
    forms = text.values() if isinstance(text, dict) else [text]
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}


def test_every_text_is_there_in_both_languages_with_the_same_placeholders(browser):
    browser.open("models")
    texts = browser.exported("texts.js", "module.TEXTS")
    assert len(texts) > 80
    for key, entry in texts.items():
        assert list(entry) == ["en", "ru"], key
        assert placeholders(entry["en"]) == placeholders(entry["ru"]), key
        for language, text in entry.items():
            assert isinstance(text, str) or set(text) == PLURALS[language], key
            assert text, key
    assert {f"state.{name}" for name in STATES} <= set(texts)
    assert {f"event.{name}" for name in EVENTS} <= set(texts)


CHOICES = {"ru": "ru", "ru-RU,en": "ru", "de,ru-RU,en": "ru", "en-GB,ru": "en", "de": "en"}


def test_the_first_language_that_the_page_has_is_chosen(browser):
    browser.open("models")
    wanted = [languages.split(",") for languages in [*CHOICES, "uk-UA,RU", "rue"]]
    chosen = browser.exported("i18n.js", "args[0].map(module.choose)", wanted)
    assert chosen == [*CHOICES.values(), "ru", "en"]


@pytest.mark.parametrize(
    ("languages", "language", "heading"),
    [
        ("de,ru-RU,en", "ru", "Задания"),
        ("de,fr", "en", "Jobs"),
    ],
)
def test_the_browser_decides_the_language(api, start_browser, languages, language, heading):
    browser = start_browser(api.url, languages)
    browser.open("jobs")
    browser.wait_for_text("#jobs", heading)
    assert browser.find("html").get_attribute("lang") == language
    texts = browser.exported("texts.js", "module.TEXTS")
    assert browser.driver.title == browser.text("h1") == texts["title"][language]


def test_russian_plurals(russian):
    russian.open("models")
    script = "args[0].map((count) => module.t('report.epochs', {count, seconds: '1,5'}))"
    epochs_in = russian.exported("i18n.js", script, [1, 2, 5, 11, 22, 1001])
    counts = ["1 эпоха", "2 эпохи", "5 эпох", "11 эпох", "22 эпохи", "1\xa0001 эпоха"]
    assert epochs_in == [f"{count} за 1,5 с" for count in counts]


# What a module of the page writes, as JavaScript: in English, in Russian.
WRITTEN = {
    "short(1234.5678)": ("1,235", "1 235"),
    "short(0.00001234)": ("0.00001234", "0,00001234"),
    "short(1e300)": ("1E300", "1E300"),
    "short(0)": ("0", "0"),
    "short(null)": ("–", "–"),
    "whole(20000)": ("20,000", "20 000"),
    "percent(0.999)": ("99%", "99 %"),
    "day('2025-11-28T10:00:00')": ("28 Nov 2025, 10:00:00", "28 нояб. 2025 г., 10:00:00"),
    "day('not a time')": ("not a time", "not a time"),
    "axisNumbers([0, 0.05, 0.1])(0.1)": ("0.10", "0,10"),
    "axisNumbers([0, 2e5])(2e5)": ("200k", "200 тыс."),
    "axisNumbers([5])(5)": ("5", "5"),
    "axisTimes(new Date(2025, 10, 28))": ("28 Nov", "28 нояб."),
    "axisTimes(new Date(2025, 10, 28, 9, 5))": ("09:05", "09:05"),
    "axisTimes(new Date(2025, 10, 28, 9, 5, 7))": (":07", ":07"),
}


def test_numbers_and_times_are_written_as_the_language_does(browser, russian):
    calls = ", ".join(f"module.{call}" for call in WRITTEN)
    for index, one in enumerate((browser, russian)):
        one.open("models")
        written = one.exported("i18n.js", f"[{calls}].map((text) => text.replace(/\\s/g, ' '))")
        assert written == [both[index] for both in WRITTEN.values()]


def jobs_in_every_state(api) -> str:
    """Leave one job in each state, and return the one that has succeeded."""
    succeeded, failed, running, cancelled, _queued = (api.new_job() for _ in STATES)
    for job in (succeeded, failed, running):
        api.claim(job)
    api.progress(succeeded, 1, epochs=epochs(1, 6, 6))
    finish(api, succeeded, ("kostroma.csv", "moscow.csv"))
    api.work("POST", f"{failed}/1/failed", json={"reason": "42"})
    api.progress(running, 1, epochs=epochs(1, 6))
    api.call("DELETE", f"/jobs/{cancelled}")
    return succeeded


def latin_words(browser, *from_the_api: str) -> set[str]:
    """Return the words in Latin letters that the page shows, without those of the API."""
    shown = browser.driver.execute_script(WORDS)
    for text in from_the_api:
        shown = shown.replace(text, "")
    return set(re.findall(r"[A-Za-z_]{2,}", shown)) - NAMES


def test_the_russian_page_has_no_english_words(api, broker, run, russian):
    run("metric", broker)
    succeeded = jobs_in_every_state(api)
    jobs, models = api.get("/jobs").json()["jobs"], api.get("/models").json()["models"]
    sentences = [text for job in jobs for text in (job["reason"], job["id"]) if text]
    sentences += [model["why"] for model in models]
    russian.open(f"jobs/{succeeded}")
    russian.wait_for_text("#job table", "kostroma.csv")
    texts = russian.exported("texts.js", "module.TEXTS")
    russian_texts = {key: entry["ru"] for key, entry in texts.items()}
    shown = {*russian.texts("#job-list .state")}
    assert shown == {russian_texts[f"state.{state}"] for state in STATES}
    assert latin_words(russian, *sentences, "kostroma", "moscow") == set()
    russian.open("models")
    russian.wait_for_text("#serving", "Текущая версия")
    wait_for(lambda: len(russian.all(".model")) == 2, 20, "both versions")
    assert latin_words(russian, *sentences) == set()
    russian.open("live")
    wait_for(lambda: russian.text("#pending") == "0", 20, "the live reader")
    send_rows(broker, 0, 20, 0, 40.5)
    for event in sorted(EVENTS):
        send_event(broker, event, "42")
    wait_for(lambda: russian.text("#error") == "40,5", 20, "the error, with a comma")
    wait_for(lambda: len(russian.all("#events li")) == len(EVENTS), 20, "the events")
    labels = {*russian.texts("#events .state")}
    assert labels == {russian_texts[f"event.{event}"] for event in EVENTS}
    assert latin_words(russian) == set()


@pytest.mark.parametrize("languages", ["en", "ru"])
@pytest.mark.parametrize("width", [PHONE, TABLET, DESKTOP])
def test_the_page_is_as_wide_as_the_window(api, broker, run, start_browser, width, languages):
    run("metric", broker)
    succeeded = jobs_in_every_state(api)
    browser = start_browser(api.url, languages)
    browser.open("live")
    wait_for(lambda: browser.text("#pending") == "0", 20, "the live reader")
    send_event(broker, "drift_detected", "The error rose to 80. " + "verylongword" * 20)
    send_rows(broker, 0, 20, 0, 40)
    places = {"live": "#events", f"jobs/{succeeded}": "#job table", "models": ".model"}
    for scheme in ("light", "dark"):
        browser.look(width, scheme)
        for view, content in places.items():
            browser.open(view)
            wait_for(lambda content=content: browser.text(content), 20, view)
            assert browser.content_width() == width, (view, scheme)
    assert browser.complaints() == []
