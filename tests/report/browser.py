"""A headless Chromium that tells what a page asks for and complains about."""

import contextlib
import os
import shutil

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def program() -> str:
    """Where Chromium is; `make test-browser` installs it."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.fail("there is no chromium: `make test-browser` installs it, or set CHROMIUM")
    return found


@contextlib.contextmanager
def launched():
    """The browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program(), args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """A page in a window of its own.

    Attributes:
        page: Playwright's.
        said: errors and warnings of its console, and what its scripts raised.
        asked: addresses that it asked for, but for its own.
    """

    def __init__(self, browser, width=1400, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self._hear(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, text):
        if "willReadFrequently" not in text:  # of tests that look at pixels
            self.said.append(text)

    def open(self, address):
        self.page.goto(address)
        self.page.wait_for_selector("html[data-drawn]", state="attached")
        self.settle()
        return self.page

    def settle(self):
        """Waits until what was changed is drawn."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )


@contextlib.contextmanager
def tab(browser, **options):
    """A `Tab` that must have asked for nothing and complained about nothing in the end."""
    opened = Tab(browser, **options)
    try:
        yield opened
        elsewhere = [url for url in opened.asked[1:] if not url.startswith("data:")]
        assert (opened.said, elsewhere) == ([], [])
    finally:
        opened.context.close()
