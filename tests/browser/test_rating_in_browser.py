"""Marking responses, and rating imported conversations, with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotation import services
from annotation.models import Conversation, Project, Rating, RubricRating, StudyKind
from annotation.services.rating_conversations import take_conversation
from tests.browser.conftest import until
from tests.factories import make_annotator, make_project, make_prompt, make_response, make_source, make_user
from tests.importing import import_lines

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


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

    page.keyboard.press("?")
    size = "getComputedStyle(document.querySelector('.panel-text p')).fontSize"
    before = page.evaluate(size)
    page.locator("[data-text-size][value='4']").check()
    page.keyboard.press("Escape")
    assert page.evaluate(size) > before

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
    unmarked = "() => document.readyState === 'complete' && !document.querySelector('#rate input:checked')"
    page.wait_for_function(unmarked)
    page.keyboard.press("Enter")  # nothing is marked: the browser says so and nothing is sent
    assert page.evaluate("document.activeElement.type") == "radio"
    page.keyboard.press("z")
    mark("Accuracy", "Fail")
    page.wait_for_load_state()  # its keys, too
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    until(page, lambda: RubricRating.objects.exclude(superseded_at=None).exists())
    assert RubricRating.objects.get(public_id=stored.public_id).accuracy is True
    page.wait_for_function(unmarked)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing to rate for now")).to_be_visible()


def test_an_imported_conversation_is_rated_with_the_keyboard_and_nothing_typed_is_lost(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    user = make_user("ann")
    ann = make_annotator(user)
    said = [("user", "One?"), ("assistant", "It is 1."), ("user", "No, two."), ("assistant", "Two.")]
    messages = [{"role": role, "content": content} for role, content in said]
    import_lines(tmp_path, [{"messages": messages}], project="talks")
    project = Project.objects.get(slug="talks")
    services.add_member(project, user)
    talk = take_conversation(project, ann)
    assert talk is not None
    page = open_page(f"/conversations/{talk.public_id}/rate/", user="ann")
    first, second = page.locator("#turn-0"), page.locator("#turn-1")

    for key in "245":  # one aspect after the other
        page.keyboard.press(key)
    page.keyboard.press("c")  # corrects an error …
    page.keyboard.press("q")
    page.keyboard.press("e")
    page.keyboard.type("2 of 5 facts are missing.")  # what is typed marks nothing
    page.reload()
    expect(page.get_by_text("What you had typed here is back.")).to_be_visible()
    expect(first.get_by_label("Note")).to_have_value("2 of 5 facts are missing.")
    expect(first.locator("[data-score] :checked")).to_have_count(3)
    expect(first.locator("[name=deficiency_types]:checked")).to_have_count(1)
    page.keyboard.press("n")  # … or rather is a further question: no deficiency stays behind
    expect(first.locator("[name=deficiency_types]:checked")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(second.locator("details")).to_have_attribute("open", "")
    page.wait_for_function("() => document.querySelector('#turn-1 [data-current]')")
    expect(page.locator("#toasts")).to_be_empty()  # what the server has is no draft
    for key in "111f":
        page.keyboard.press(key)
    until(page, lambda: Conversation.objects.filter(pk=talk.pk, ended_at__isnull=False).exists())
    given = Rating.objects.order_by("value").values_list("value", flat=True)
    assert list(given) == [1, 1, 1, 2, 4, 5]
    assert Rating.objects.filter(note="2 of 5 facts are missing.").count() == 1
