"""Marking responses with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotation import services
from annotation.models import RubricRating, StudyKind
from tests.browser.conftest import until
from tests.factories import make_project, make_prompt, make_response, make_source, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_responses_are_marked_with_the_keyboard_alone(open_page: Callable[..., Page]) -> None:
    user = make_user("ann")
    project = make_project(members=[user])
    for number in range(2):
        make_response(make_prompt(project, f"Question {number}?"), make_source("one-model"), f"Answer **{number}**.")
    services.create_study(
        project=project, name="marks", kind=StudyKind.RUBRIC, source=make_source("one-model"), against=None,
        prompts=project.prompts.all(),
    )  # fmt: skip
    page = open_page(reverse("rate", args=[project.slug]), user="ann")

    def mark(question: str, value: str) -> None:
        expect(page.get_by_role("group", name=question).get_by_role("radio", name=value)).to_be_checked()

    page.keyboard.press("a")  # all pass
    page.keyboard.press("2")  # and one does not
    page.keyboard.press("5")
    mark("Intent", "Pass")
    mark("Accuracy", "Fail")
    page.keyboard.press("k")  # from the fifth to the fourth
    page.keyboard.press("ArrowDown")
    mark("Safety", "Fail")
    page.keyboard.press("n")
    page.keyboard.type("2 faults; a bad one.")  # letters and digits of a note mark nothing
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    until(page, lambda: RubricRating.objects.filter(status="submitted").count() == 1)
    stored = RubricRating.objects.get(status="submitted")
    marks = (stored.intent, stored.accuracy, stored.language, stored.safety, stored.is_satisfied)
    assert marks == (True, False, True, False, False)
    assert stored.note == "2 faults; a bad one."
    assert stored.decided_in_ms is not None and stored.first_key_ms is not None
    assert stored.first_key_ms <= stored.decided_in_ms

    # The next one, with its script.
    page.wait_for_function("document.readyState === 'complete' && !document.querySelector('input:checked')")
    page.keyboard.press("Enter")  # nothing is marked: the browser says so and nothing is sent
    assert page.evaluate("document.activeElement.type") == "radio"
    page.keyboard.press("z")
    mark("Accuracy", "Fail")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    until(page, lambda: RubricRating.objects.exclude(superseded_at=None).exists())
    assert RubricRating.objects.get(public_id=stored.public_id).accuracy is True
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing to rate for now")).to_be_visible()
