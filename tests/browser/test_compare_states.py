"""The compare and rewrite pages in the middle of work: what axe finds, and how they look.

With TOUCHSTONE_SCREENSHOTS=FOLDER each state is photographed there (docs/screenshots is made like this).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from playwright.sync_api import Page, expect

from annotation import services
from annotation.models import Assignment, Comparison, Project, RewriteCause
from annotation.protocol import DEFAULT_ASPECTS, PRESETS, Axis, Demand, Protocol
from tests.browser.test_every_page import PHONE, WIDE, look, make_work

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
Open = Callable[..., Page]
WORK = Protocol(
    chips=("more correct", "clearer", "shorter", "kinder"),
    spans=True,
    edit_demand=Demand.OPTIONAL,
    rewrite_neither=True,
)
SCORED = Protocol(axes=(Axis("harmless", "Which is less harmful?"),), aspects=DEFAULT_ASPECTS)


def calm_on_the_left() -> None:
    Assignment.objects.filter(display_order=None).update(a_shown_on_left=True)


def mark_first_sentence_of_b(page: Page) -> None:
    page.keyboard.press("m")
    dialog = page.locator("#mark-dialog")
    dialog.get_by_label("Passage", exact=True).fill("Just water it every day and it will be fine.")
    dialog.get_by_label("In response").select_option("B")
    dialog.get_by_label("Note on this passage").fill("Roots rot in wet soil.")
    dialog.get_by_role("button", name="Mark it").click()
    page.get_by_label("more correct").check()
    page.wait_for_timeout(6_000)  # until the toast is gone


def edit_a(page: Page) -> None:
    page.keyboard.press("e")
    page.keyboard.press("2")
    expect(page.locator("[data-editor-text]")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Feed it every second week in summer.")


def start_from_first(page: Page) -> None:
    page.get_by_role("link", name="Start from").first.click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Feed it every second week in summer.")


def rank_two(page: Page) -> None:
    page.keyboard.press("2")
    page.keyboard.press("1")


def score_some(page: Page) -> None:
    for key in "2354":
        page.keyboard.press(key)


def test_the_states_of_comparing_pass_axe_in_both_themes_and_on_a_phone(open_page: Open) -> None:
    ann = User.objects.create_user("ann")
    helpful = make_work(ann, "helpful", protocol=WORK)
    make_work(ann, "ranked", protocol=PRESETS["ranking"][1])
    make_work(ann, "scored", protocol=SCORED)
    for comparison in helpful.comparisons.all()[:2]:
        services.queue_rewrite(comparison.pk, cause=RewriteCause.NEITHER)
    Project.objects.update(gold_every=0, gold_every_at_first=0)
    Comparison.objects.update(queue_key=F("pk"))  # the first prompt is the one that the texts answer
    states = (
        ("compare-pair", "/projects/helpful/compare/", lambda page: None),
        ("compare-passages", "/projects/helpful/compare/", mark_first_sentence_of_b),
        ("compare-edit", "/projects/helpful/compare/", edit_a),
        ("compare-skip", "/projects/helpful/compare/", lambda page: page.keyboard.press("s")),
        ("compare-keys", "/projects/helpful/compare/", lambda page: page.keyboard.press("?")),
        ("compare-ranking-begun", "/projects/ranked/compare/", rank_two),
        ("compare-scores-begun", "/projects/scored/compare/", score_some),
        ("rewrite", "/projects/helpful/rewrite/", start_from_first),
    )
    faults: list[str] = []
    for suffix, options, scheme in (("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-phone", PHONE, "light")):
        page = open_page("/healthz", user="ann", color_scheme=scheme, **options)
        page.goto("/projects/helpful/compare/")
        calm_on_the_left()
        for name, address, act in states:
            page.evaluate("localStorage.clear()")
            page.goto(address)
            page.wait_for_load_state("load")
            expect(page.locator("main.compare")).not_to_have_attribute("data-keys-off", "")
            act(page)
            look(page, name + suffix, faults)
            width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            if width > 0:
                faults.append(f"{name}{suffix}: the page is {width} px wider than the window")
        page.close()
    assert not faults, "\n".join(faults)
