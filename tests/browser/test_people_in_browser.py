"""The pages about people and settings in a real browser: an invitation, from link to account; forms that preview."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotation import services
from annotation.models import Membership, Project, Role
from annotation.protocol import Protocol, Scale
from tests.browser.conftest import until
from tests.factories import make_judged_project, make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
Open = Callable[..., Page]


@pytest.fixture
def project() -> Project:
    project = make_judged_project(4, slug="helpful")
    services.add_member(project, make_user("ada"), role=Role.ADMIN)
    return project


def test_an_invitation_is_copied_followed_and_makes_an_account(open_page: Open, project: Project) -> None:
    admin = open_page("/projects/helpful/people/", user="ada", permissions=["clipboard-read", "clipboard-write"])
    admin.get_by_label("For (optional)").fill("fay@example.org")
    admin.keyboard.press("Enter")
    admin.get_by_role("button", name="Copy").click()
    expect(admin.get_by_role("button", name="Copied")).to_be_visible()
    link = admin.evaluate("navigator.clipboard.readText()")
    assert re.search(r"/join/\S+/$", link)
    guest = open_page(link)
    guest.keyboard.type("fay")  # the name has the focus
    guest.keyboard.press("Tab")
    guest.keyboard.type("a-long-password")
    guest.keyboard.press("Enter")
    expect(guest.get_by_text("You are in helpful now.")).to_be_visible()
    assert Membership.objects.get(user__username="fay").role == "annotator"
    again = open_page(link)
    expect(again.get_by_text("This invitation has been used")).to_be_visible()


def test_settings_and_guidelines_show_what_they_will_do_before_they_are_saved(
    open_page: Open, project: Project
) -> None:
    services.create_project(slug="fresh", name="Fresh")
    services.add_member(Project.objects.get(slug="fresh"), make_user("ben"), role=Role.ADMIN)
    page = open_page("/projects/fresh/settings/", user="ben")
    answers = page.get_by_role("list", name="Answers").get_by_role("listitem")
    expect(answers).to_have_count(8)
    page.get_by_label("Seven steps, with").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(answers).to_have_count(4)
    page.locator("[name=aspect-0-label]").fill("Clarity")
    expect(page.locator("#protocol-preview")).to_contain_text("Clarity 1–5")
    page.locator("[name=aspect-0-label]").press("Enter")
    expect(page.get_by_text("The settings are saved.")).to_be_visible()
    protocol = Protocol.of(Project.objects.get(slug="fresh"))
    assert (protocol.scale, [aspect.name for aspect in protocol.aspects]) == (Scale.BINARY, ["clarity"])

    page.goto("/projects/fresh/guidelines/")
    page.get_by_label("Guidelines, in Markdown").fill("Be **fair**.")
    expect(page.locator("#guidelines-text strong")).to_have_text("fair")
    page.get_by_role("button", name="Put this version in force").click()
    until(page, lambda: Project.objects.get(slug="fresh").guideline_version == 1)


def test_the_pages_fit_a_phone_and_the_charts_are_drawn(open_page: Open, project: Project) -> None:
    ann = make_user("ann")
    services.add_member(project, ann)
    annotator = services.annotator_for(ann)
    project.comparisons.update(required_count=2)
    assignment = services.claim_assignments(annotator=annotator, project=project)[0]
    type(assignment).objects.filter(pk=assignment.pk).update(status="submitted", submitted_at=assignment.leased_at)
    page = open_page("/projects/helpful/progress/", user="ada", viewport={"width": 390, "height": 844})
    expect(page.locator("#pace-charts canvas")).to_have_count(2)
    expect(page.locator(".tabs [aria-current]")).to_be_in_viewport(ratio=0.9)
    for path in ("progress", "people", f"people/{ann.pk}", "settings", "guidelines", "journal", ""):
        page.goto(f"/projects/helpful/{path}/" if path else "/me/")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide == 390, (path, wide)
