"""Reviewers settle with the keyboard, and a person's charts are drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotation.models import Adjudication, Membership, Role
from annotation.services.quality import mark_for_review
from tests.browser.conftest import until
from tests.factories import make_annotator, make_comparison, make_project, make_ranking, make_user
from tests.votes import make_vote

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_a_reviewer_settles_with_the_keyboard_alone(open_page: Callable[..., Page]) -> None:
    project, user = make_project(), make_user("rita")
    Membership.objects.create(project=project, user=user, role=Role.REVIEWER)
    people = [make_annotator(), make_annotator()]
    for number in range(2):
        comparison = make_comparison(project, a_text=f"Text $x^{number}$ of one.", b_text=f"Text {number} of two.")
        make_vote(comparison, people[0], -2)
        make_vote(comparison, people[1], 3)
    mark_for_review(project=project)

    page = open_page(reverse("adjudicate", args=[project.slug]), user="rita")
    page.get_by_role("link", name="Start with the newest").press("Enter")
    expect(page.locator(".katex").first).to_be_attached()
    page.keyboard.press("6")
    expect(page.get_by_role("radio", name="B better", exact=True)).to_be_checked()
    page.keyboard.press("n")
    page.keyboard.type("7 reasons, and none is 3.")  # digits in a note vote for nothing
    page.keyboard.press("Escape")
    expect(page.get_by_role("radio", name="B better", exact=True)).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The verdict is stored.")).to_be_visible()
    until(page, lambda: Adjudication.objects.count() == 1)
    stored = Adjudication.objects.get()
    assert (abs(stored.strength or 0), stored.note) == (2, "7 reasons, and none is 3.")

    page.get_by_role("button", name="Keys").press("Enter")
    page.locator("#keys").get_by_role("button", name="Change the key for: Neither is good").click()
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()
    page.keyboard.press("x")
    expect(page.get_by_role("radio", name="Neither is good")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing to settle")).to_be_visible()
    assert set(Adjudication.objects.values_list("preference", flat=True)) == {stored.preference, "neither"}

    ranking = make_ranking(project, "Text one.", "Text two.", "Text three.")
    page.goto(reverse("settle", args=[project.slug, ranking.pk]))
    expect(page.locator(".panel[data-current]")).to_have_count(1)
    page.get_by_role("button", name="Keys").press("Enter")
    page.keyboard.press("Escape")
    for key in ("2", "1", "1"):  # each digit ranks the marked one and goes on to the next
        page.keyboard.press(key)
    shown = page.locator(".review-panels .panel-text").all_inner_texts()
    page.keyboard.press("Enter")
    until(page, lambda: Adjudication.objects.filter(preference="ranked").exists())
    ranks = dict(zip(shown, [2, 1, 1], strict=True))
    assert Adjudication.objects.get(preference="ranked").ranking == [
        ranks[text] for text in ("Text one.", "Text two.", "Text three.")
    ]

    page.goto(reverse("annotator_quality", args=[project.slug, people[0].pk]))
    expect(page.locator("#drift canvas").first).to_be_visible()
