"""A real browser without a window, which records its requests and its complaints."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.environment import lacking, needs
from tests.support.waiting import wait_for

FLAGS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
FLAGS += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--hide-scrollbars"]  # they would take their width from the page
PHONE, TABLET, DESKTOP = 390, 820, 1280  # pixels
REQUEST = "Network.requestWillBeSent"


class Browser:
    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, view: str) -> None:
        """Load the page anew, with one of its views."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#{view}")

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text at a place now; the page may be replacing the element."""
        script = (
            "const element = document.querySelector(arguments[0]);"
            "return element?.innerText ?? element?.textContent ?? ''"  # SVG has no innerText
        )
        return self.driver.execute_script(script, selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.driver.execute_script(script, selector)

    def wait_for_text(self, selector: str, text: str, seconds: float = 30) -> None:
        wait_for(lambda: text in self.text(selector), seconds, f"{text!r} in {selector}")

    def exported(self, module: str, expression: str, *arguments: Any) -> Any:
        """Return an expression over what a module of the page exports, as `module`."""
        script = (
            "const args = [...arguments]; const done = args.pop(); const path = args.pop();"
            f"import(path).then((module) => done({expression}), (error) => done(String(error)))"
        )
        return self.driver.execute_async_script(script, *arguments, f"/static/{module}")

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, text: str) -> None:
        """Press Tab until the focus is on an element that shows `text` or is labelled with it."""
        for _ in range(40):
            self.press(Keys.TAB)
            focus = self.driver.switch_to.active_element
            if text in (focus.text, focus.accessible_name):
                return
        raise AssertionError(f"the keyboard does not reach {text!r}")

    def look(self, width: int, scheme: str = "light") -> None:
        """Be as wide as a phone or a desktop, and light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        dark = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)

    def content_width(self) -> int:
        """Return the width in pixels that the page needs; more than the window's if it scrolls."""
        return self.driver.execute_script("return document.documentElement.scrollWidth")

    def hide(self) -> None:
        self.driver.minimize_window()

    def show(self) -> None:
        self.driver.set_window_rect(0, 0, DESKTOP, 900)

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console, violations of the policy included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked(self) -> set[str]:
        """Return all addresses that were requested since the last call."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == REQUEST]
        return {url for url in sent if not url.startswith("data:")}


@contextmanager
def started(url: str, languages: str = "en-US,en") -> Iterator[Browser]:
    """Yield a browser for the page at `url` whose user reads `languages`, the best one first.

    Debian has it as the packages chromium and chromium-driver.
    """
    needs("browser")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        lacking("a browser: install the packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"intl.accept_languages": languages})
    for flag in [*FLAGS, f"--lang={languages.split(',')[0]}"]:
        options.add_argument(flag)
    chrome = webdriver.Chrome(options, Service(driver))
    try:
        chrome.set_page_load_timeout(30)
        chrome.set_script_timeout(30)
        yield Browser(chrome, url)
    finally:
        chrome.quit()
