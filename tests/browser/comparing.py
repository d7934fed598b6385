"""What the tests of the compare page read and press."""

from __future__ import annotations

from playwright.sync_api import Page


def current(page: Page) -> str:
    return page.locator("#stage .comparison").get_attribute("data-assignment") or ""


def press_and_move(page: Page, key: str) -> None:
    """Press a key that leads to another pair, and wait for it."""
    before = current(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => ![undefined, before].includes(document.querySelector('#stage .comparison')?.dataset.assignment)",
        arg=before,
    )


def checked(page: Page) -> str | None:
    marked = page.locator("#vote input[name=choice]:checked")
    return marked.get_attribute("value") if marked.count() else None
