"""Who may open what. docs/people.md shows the same table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotation.models import Invitation, Membership, Project, Role, Study, Webhook, WebhookDelivery
from annotation.services import add_member, create_invitation, create_project
from annotation.templatetags.people import TABS
from rlhf import urls
from tests.factories import make_project, make_source, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]

ROLES = {
    Role.ANNOTATOR: {"project_guidelines", "project_tick"},
    Role.REVIEWER: {"project_detail", "project_strip", "project_progress", "project_leaderboard",
                    "project_studies", "project_study", "project_study_file"},
    Role.ADMIN: {
        "project_people", "project_invite", "invitation_revoke", "project_member", "member_remove",
        "member_qualification", "member_unlock", "project_settings", "protocol_preview", "project_open",
        "project_webhooks", "project_webhook", "webhook_switch", "webhook_remove", "webhook_restore", "webhook_resend",
        "guidelines_preview", "project_journal", "project_journal_file", "project_generate",
        "generation_rows", "cancel_generation", "project_export", "project_exports",
        "project_study_act",
    },
}  # fmt: skip
FOR_MEMBERS_ONLY = {"compare", "renew_lease", "guidelines_text"}
"""Where staff who are no members find nothing either: they hold no comparisons."""

TESTED_BESIDE_THEM = tuple(f"annotation.pages.{name}" for name in ("prompts", "quality", "settle", "rewrite", "rate"))
"""Modules whose own tests say who opens their pages."""

RANKS = [None, Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN]


def addresses(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, path)
        else:
            yield path, pattern


@pytest.fixture
def project() -> Project:
    project = create_project(slug="helpful", name="Helpful")
    host = make_user("host", is_staff=True)
    create_invitation(project, by=host)
    webhook = Webhook.objects.create(project=project, url="https://example.org/", created_by=host, is_active=False)
    WebhookDelivery.objects.create(webhook=webhook, event_id=1)
    Study.objects.create(project=project, name="spring", kind="rubric", source=make_source())
    return project


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def address_of(name: str, project: Project) -> str:
    pattern = next(pattern for _path, pattern in addresses(get_resolver()) if pattern.name == name)
    member, _made = Membership.objects.get_or_create(project=project, user=User.objects.get(username="host"))
    values = {
        "slug": project.slug,
        "user_id": member.user_id,
        "invitation_id": Invitation.objects.get().pk,
        "webhook_id": Webhook.objects.get().pk,
        "delivery_id": WebhookDelivery.objects.get().public_id,
        "job_id": 1,
        "kind": "nothing",
        "suffix": "jsonl",
        "study_id": Study.objects.get().pk,
    }
    return reverse(name, kwargs={key: values[key] for key in pattern.pattern.regex.groupindex})


@pytest.mark.parametrize("needed", list(ROLES))
def test_every_page_of_a_project_opens_to_its_role_and_those_above(needed: Role, project: Project) -> None:
    people: dict[Role | None, Client] = {}
    for role in RANKS:
        user = make_user()
        if role:
            add_member(project, user, role=role)
        people[role] = client_of(user)
    boss = client_of(make_user(is_staff=True))
    for name in sorted(ROLES[needed]):
        address = address_of(name, project)
        for role, client in people.items():
            expected = {404} if role is None else {403} if RANKS.index(role) < RANKS.index(needed) else {200, 302, 405}
            if name in ("cancel_generation", "project_export", "project_study_file") and 200 in expected:
                expected |= {404}  # there is no such job; the project has nothing to export
            assert client.get(address).status_code in expected, (name, role)
            if role is None or 403 in expected:
                assert client.post(address).status_code in expected, (name, role)
        assert boss.get(address).status_code in {200, 302, 404, 405}, name
        assert Client().get(address)["Location"] == f"{reverse('login')}?next={address}", name
        if name != "project_detail":  # what is no project is nowhere
            assert boss.get(address.replace("helpful", "unknown", 1)).status_code == 404


def test_the_table_names_every_page_of_a_project_that_asks_for_a_role() -> None:
    named = set().union(*ROLES.values()) | FOR_MEMBERS_ONLY
    ours = {
        str(pattern.name)
        for path, pattern in addresses(get_resolver())
        if path.startswith("projects/<slug:slug>/")
        and pattern.callback.__module__.startswith(("annotation.pages", "rlhf.views"))
        and not pattern.callback.__module__.startswith(TESTED_BESIDE_THEM)
    }
    assert ours <= named
    assert ours >= named - FOR_MEMBERS_ONLY


def test_a_tab_is_shown_to_whoever_may_open_it(project: Project) -> None:
    for name, _label, needed in TABS:
        if name in set().union(*ROLES.values()):
            assert name in ROLES[needed], name
    texts = {}
    for role in RANKS[1:]:
        user = make_user()
        add_member(project, user, role=role)  # type: ignore[arg-type]
        texts[role] = client_of(user).get(f"/projects/{project.slug}/guidelines/").content.decode()
    tabs = {role: re.findall(r'<nav class="tabs".*?</nav>', text, re.S) for role, text in texts.items()}
    assert tabs[Role.ANNOTATOR] == []  # one tab alone is none
    assert "Progress" in tabs[Role.REVIEWER][0]
    assert "Settings" not in tabs[Role.REVIEWER][0]
    assert "Settings" in tabs[Role.ADMIN][0]
    assert 'aria-label="Main"' not in texts[Role.ANNOTATOR]
    assert ">Projects</a>" in texts[Role.REVIEWER]
    assert ">Training</a>" not in texts[Role.ADMIN]


def site_addresses() -> list[str]:
    """The pages of rlhf that belong to no project."""
    found = []
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        names = pattern.pattern.regex.groupindex
        if "slug" not in names:
            found.append(reverse(str(pattern.name), kwargs=dict.fromkeys(names, 1)))
    return found


@pytest.mark.parametrize("address", site_addresses())
@pytest.mark.parametrize("method", ["get", "post"])
def test_only_staff_may_open_a_page_of_the_site(address: str, method: str, client: Client) -> None:
    answer = getattr(client, method)(address)
    if address.startswith("/api/"):
        assert answer.status_code in (401, 403)
    else:
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, reverse("login"))
    user = make_user()
    add_member(make_project(), user)
    client.force_login(user)
    assert getattr(client, method)(address).status_code == 403


def test_reviewers_and_admins_see_their_own_projects_in_the_list(client: Client) -> None:
    mine, _other = make_project("mine"), make_project("other")
    user = make_user()
    add_member(mine, user, role=Role.REVIEWER)
    client.force_login(user)
    text = client.get("/projects/").content.decode()
    assert ">mine</a>" in text
    assert "other" not in text
    assert "New project" not in text
    assert client.post("/projects/", {"name": "x", "slug": "x", "judgments_per_comparison": 1}).status_code == 403
    assert client.get("/journal/").status_code == 403


def test_a_watching_page_that_was_signed_out_is_told_to_load_anew(client: Client, project: Project) -> None:
    for address in ("/training/rows/", f"/projects/{project.slug}/strip/"):
        answer = client.get(address, headers={"HX-Request": "true"})
        assert (answer.status_code, answer["HX-Refresh"]) == (401, "true")
