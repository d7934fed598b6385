"""Headless Chromium against a live server; each test gets its own browser context."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

PASSWORD = "a-long-password"
PATIENCE_SECONDS = 20  # on a machine that is busy with other work
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not executable:
        if os.environ.get("CI"):
            pytest.fail("no Chromium found; continuous integration must have it")
        pytest.skip("no Chromium found (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # --no-sandbox: Chromium refuses to run as root, as it does in a container, with its sandbox on.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, live_server) -> Iterator[Callable[..., Page]]:  # type: ignore[no-untyped-def]
    """Open a page in a fresh context, signed in if `user` is named; any script error fails the test."""
    contexts, errors = [], []

    def open_one(path: str = "/", *, user: str = "", **options: Any) -> Page:
        context = browser.new_context(
            base_url=live_server.url, **{"viewport": {"width": 1440, "height": 900}, **options}
        )
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        contexts.append(context)
        if user:
            client = Client()
            client.force_login(get_user_model().objects.get(username=user))
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None,
        )
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors, errors


def until(page: Page, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that happens outside the page, such as a row in the database."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        page.wait_for_timeout(20)
