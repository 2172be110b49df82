"""The live page in a real browser, over an application under load in four workers."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

PROGRAM = """
from flask import Flask, request
from weir.flask import Limiter, dashboard

app = Flask(__name__)
app.secret_key = "of a test"
limiter = Limiter(lambda: request.headers.get("X-Client", "127.0.0.1"), app=app,
                  default_limits=["100000 per day"])

@app.get("/")
@limiter.exempt
def index():
    return "served"

@app.get("/search")
@limiter.limit("20 per minute; 500 per hour")
def search():
    return "found"

@app.get("/prices")
def prices():
    return "3"

dashboard.mount(app, limiter,
                authorize=lambda: request.cookies.get("admin") == "yes" or "admin" in request.args)
"""

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)
DRIVER = shutil.which("chromedriver") or ""

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
    pytest.mark.slow,
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--force-color-profile=srgb",
        f"--user-data-dir={tmp_path / 'browser'}",
        "--window-size=1200,1250",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def site(serve: Callable[..., Any]) -> Any:
    return serve(PROGRAM)


@pytest.fixture
def load(site: Any) -> Iterator[None]:
    """Polite clients, and one that sends many requests."""
    over = threading.Event()

    def visit(client: str, path: str, pause: float) -> None:
        while not over.wait(pause):
            site.send(path, X_Client=client)

    threads = [
        threading.Thread(target=visit, args=("203.0.113.9", "/search", 0.01)),
        *(
            threading.Thread(target=visit, args=(f"198.51.100.{n}", "/prices", 0.1))
            for n in range(1, 6)
        ),
    ]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def open_page(browser: webdriver.Chrome, site: Any) -> None:
    browser.get(site.url + "/weir/?admin")
    browser.add_cookie({"name": "admin", "value": "yes"})
    browser.get_log("browser")  # its style and script were denied before
    browser.get(site.url + "/weir/")


def rows(browser: webdriver.Chrome, table: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
        ".map((row) => row.innerText)",
        table,
    )
    return found


def wait(browser: webdriver.Chrome, what: Callable[[], object], seconds: float = 120) -> None:
    WebDriverWait(browser, seconds, 0.1).until(lambda _: what())


def click(browser: webdriver.Chrome, selector: str) -> None:
    """In one step: the page may replace a button that was found before it is clicked."""
    script = "const b = document.querySelector(arguments[0]); b?.click(); return Boolean(b)"
    wait(browser, lambda: browser.execute_script(script, selector))


def test_the_page_shows_who_sends_many_requests_and_blocks_him(
    browser: webdriver.Chrome, site: Any, load: None
) -> None:
    open_page(browser, site)
    wait(browser, lambda: any("203.0.113.9" in row for row in rows(browser, "denied")))
    wait(browser, lambda: browser.find_element(By.ID, "denied-rate").text[:1] in "123456789")
    wait(browser, lambda: any("20 per 1 minute" in row for row in rows(browser, "limits")))
    wait(browser, lambda: any("198.51.100." in row for row in rows(browser, "allowed")))

    click(browser, '#denied button[aria-label$="203.0.113.9"]')
    wait(browser, lambda: any("203.0.113.9" in row for row in rows(browser, "rules")))
    for _ in range(12):  # whichever worker answers
        assert site.send("/prices", X_Client="203.0.113.9")[0] == 429
        assert site.send("/prices", X_Client="198.51.100.99")[0] == 200

    if path := os.environ.get("WEIR_SCREENSHOT"):
        wait(browser, lambda: browser.execute_script("return history.length") or True, 12)
        take_screenshot(browser, Path(path))

    click(browser, "#rules button")
    wait(browser, lambda: not rows(browser, "rules"))
    assert site.send("/prices", X_Client="203.0.113.9")[0] == 200
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def take_screenshot(browser: webdriver.Chrome, path: Path) -> None:
    threading.Event().wait(20)  # so that the picture shows some history
    browser.save_screenshot(str(path))


def test_the_form_blocks_a_range_for_a_time(browser: webdriver.Chrome, site: Any) -> None:
    open_page(browser, site)
    browser.find_element(By.NAME, "client").send_keys("10.1.0.0/16")
    Select(browser.find_element(By.NAME, "seconds")).select_by_visible_text("1 day")
    browser.find_element(By.CSS_SELECTOR, "form button[value=block]").click()
    wait(
        browser,
        lambda: any("10.1.0.0/16" in row and "24 h" in row for row in rows(browser, "rules")),
    )
    assert site.send("/prices", X_Client="10.1.2.3")[0] == 429
    field = browser.find_element(By.NAME, "client")
    wait(browser, lambda: field.get_property("value") == "")  # emptied after the answer
    field.send_keys("10.1.0.0/99")
    browser.find_element(By.CSS_SELECTOR, "form button[value=block]").click()
    wait(browser, lambda: browser.find_element(By.ID, "message").is_displayed())


def test_a_clients_name_is_text_and_nothing_else(browser: webdriver.Chrome, site: Any) -> None:
    open_page(browser, site)
    evil = "<img src=x onerror=document.title='broken'>"
    browser.find_element(By.NAME, "client").send_keys(evil)
    browser.find_element(By.CSS_SELECTOR, "form button[value=block]").click()
    wait(browser, lambda: rows(browser, "rules"))
    assert browser.title == "Weir"
    assert browser.find_elements(By.CSS_SELECTOR, "#rules img") == []


def test_a_phone_shows_it_without_scrolling_sideways(
    browser: webdriver.Chrome, site: Any, load: None
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True},
    )
    open_page(browser, site)
    wait(browser, lambda: rows(browser, "denied"))
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 375
    if path := os.environ.get("WEIR_SCREENSHOT"):
        browser.save_screenshot(str(Path(path).with_suffix(".phone.png")))


def test_without_authorization_there_is_a_403_that_lists_nothing(site: Any) -> None:
    site.send("/search", X_Client="203.0.113.9")
    for path in ("/weir/", "/weir/state", "/weir/events", "/weir/page.js"):
        status, body = site.send(path)
        assert status == 403
        assert "203.0.113.9" not in body
        assert "per 1 minute" not in body
