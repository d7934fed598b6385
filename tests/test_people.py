"""Members, invitations, tokens and settings as services: what is given back, refused, and written into the journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.utils import timezone

from annotation import services
from annotation.access import has_role, role_in
from annotation.models import (
    ApiToken,
    Assignment,
    Event,
    GuidelineVersion,
    Invitation,
    Membership,
    Project,
    Prompt,
    RewriteTask,
    Role,
)
from annotation.protocol import PRESETS, Aspect, Protocol, Scale
from annotation.services import ConflictError, DomainError
from annotation.services.tokens import make_token, withdraw_token
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> User:
    return make_user("boss", is_staff=True)


@pytest.fixture
def project(boss: User) -> Project:
    return services.create_project(slug="helpful", name="Helpful", by=boss)


def journal(kind: str = "") -> list[dict]:
    """What the journal says, oldest first."""
    events = Event.objects.order_by("pk")
    return [event.data for event in (events.filter(kind=kind) if kind else events)]


def leased_by(user: User, project: Project) -> int:
    return Assignment.objects.filter(annotator__user=user, project=project, status="leased").count()


# ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_role_holds_in_its_project_alone_and_staff_are_admins_everywhere(project: Project, boss: User) -> None:
    other, user = make_project(), make_user()
    services.add_member(project, user, role=Role.REVIEWER, by=boss)
    assert (role_in(user, project), role_in(user, other), role_in(boss, other)) == (Role.REVIEWER, None, Role.ADMIN)
    assert has_role(user, project, Role.ANNOTATOR)
    assert not has_role(user, project, Role.ADMIN)


def test_adding_somebody_again_changes_their_place(project: Project, boss: User) -> None:
    user = make_user("ann")
    services.add_member(project, user, languages=["en"], by=boss)
    services.add_member(project, user, role=Role.ADMIN, languages=["zh"], skills=["math"], by=boss)
    membership = Membership.objects.get()
    assert (membership.role, membership.languages, membership.skills) == ("admin", ["zh"], ["math"])
    services.change_member(project, user, role="admin", by=boss)  # as it is already: nothing to tell
    assert journal("member") == [
        {"action": "added", "member": "ann", "role": "annotator"},
        {"action": "changed", "member": "ann", "to": {"role": "admin", "languages": ["zh"], "skills": ["math"]}},
    ]


def test_many_are_added_or_none(project: Project, boss: User) -> None:
    for name in ("ann", "ben"):
        make_user(name)
    User.objects.filter(username="ben").update(is_active=False)
    with pytest.raises(DomainError, match="no active account named ben, cid"):
        services.add_members(project, ["ann", "ben", "cid"], by=boss)
    assert not Membership.objects.exists()
    User.objects.filter(username="ben").update(is_active=True)
    services.add_member(project, User.objects.get(username="ben"), role=Role.ADMIN)
    assert services.add_members(project, ["ann", "ben", "ann"], by=boss) == 1
    assert role_in(User.objects.get(username="ben"), project) == Role.ADMIN  # who was there keeps what they had


def test_who_loses_a_role_leaves_or_is_switched_off_gives_back_what_they_hold(project: Project, boss: User) -> None:
    user, elsewhere = make_user(), make_project()
    annotator = make_annotator(user)
    for place in (project, elsewhere):
        services.add_member(place, user, role=Role.REVIEWER)
        for _ in range(2):
            make_comparison(place)
    rewritten = make_comparison(project)
    RewriteTask.objects.create(
        project=project, comparison=rewritten, prompt=rewritten.prompt, cause="neither", status="leased",
        annotator=annotator, lease_expires_at=timezone.now() + timedelta(minutes=5),
    )  # fmt: skip

    def hold() -> None:
        for place in (project, elsewhere):
            services.claim_assignments(annotator=annotator, project=place)
        assert leased_by(user, project) == 2

    hold()
    services.change_member(project, user, languages=["en"], by=boss)
    services.change_member(project, user, role=Role.ADMIN, by=boss)
    assert leased_by(user, project) == 2  # no role was lost
    services.change_member(project, user, role=Role.ANNOTATOR, by=boss)
    assert leased_by(user, project) == 0
    assert RewriteTask.objects.get().status == "open"
    hold()
    assert services.remove_member(project, user, by=boss) == 2
    assert (leased_by(user, project), leased_by(user, elsewhere)) == (0, 2)
    assert services.deactivate_user(user, by=boss) == 2
    assert leased_by(user, elsewhere) == 0
    assert not User.objects.get(pk=user.pk).is_active
    assert journal("member")[-1] == {"action": "deactivated", "member": user.username}


def test_a_member_who_is_gone_cannot_be_changed(project: Project) -> None:
    user = make_user("ann")
    with pytest.raises(DomainError, match="ann is not a member of this project any more"):
        services.change_member(project, user, role=Role.ADMIN)


def test_new_annotators_qualify_where_the_project_asks_for_it(project: Project, boss: User) -> None:
    services.update_settings(project, boss, qualification_count=5)
    ann, rev = make_user(), make_user()
    assert services.add_member(project, ann).qualification == "running"
    assert services.add_member(project, rev, role=Role.REVIEWER).qualification == "not_needed"
    assert services.set_qualification(project, ann, "passed", by=boss).qualification == "passed"
    Membership.objects.filter(user=ann).update(qualification_tries=2)
    assert services.set_qualification(project, ann, "running", by=boss).qualification_tries == 0


# ── Invitations ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_invitation_serves_one_person_once(project: Project, boss: User) -> None:
    invitation, secret = services.create_invitation(
        project, by=boss, role=Role.REVIEWER, languages=["en"], skills=["code"], days=3
    )
    assert secret not in str(Invitation.objects.values().get())
    assert all(secret not in str(entry) for entry in journal())
    ann, ben = make_user("ann"), make_user("ben")
    membership = services.accept_invitation(secret, ann)
    assert (membership.role, membership.languages, membership.skills) == ("reviewer", ["en"], ["code"])
    invitation.refresh_from_db()
    assert invitation.accepted_by == ann
    with pytest.raises(DomainError, match="has been used"):
        services.accept_invitation(secret, ben)
    with pytest.raises(DomainError, match="No invitation belongs to this link"):
        services.accept_invitation(secret[:-1], ben)
    assert not services.revoke_invitation(invitation, by=boss)
    assert [entry["action"] for entry in journal("member")] == ["invited", "added", "accepted"]


def test_an_old_or_withdrawn_invitation_says_so(project: Project, boss: User) -> None:
    old, old_secret = services.create_invitation(project, by=boss)
    Invitation.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(DomainError, match="has expired"):
        services.find_invitation(old_secret)
    withdrawn, secret = services.create_invitation(project, by=boss)
    assert services.revoke_invitation(withdrawn, by=boss)
    with pytest.raises(DomainError, match="was withdrawn"):
        services.join_with_new_account(secret, username="eve", password="a-long-password")
    assert not User.objects.filter(username="eve").exists()  # neither half is done


def test_an_invitation_raises_a_role_and_never_lowers_one(project: Project, boss: User) -> None:
    ann = make_user("ann")
    services.add_member(project, ann, role=Role.REVIEWER)
    _lower, lower_secret = services.create_invitation(project, by=boss, role=Role.ANNOTATOR)
    with pytest.raises(ConflictError, match="You are in Helpful already"):
        services.accept_invitation(lower_secret, ann)
    assert services.find_invitation(lower_secret)  # still good for somebody else
    _higher, higher_secret = services.create_invitation(project, by=boss, role=Role.ADMIN)
    assert services.accept_invitation(higher_secret, ann).role == "admin"


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_stored_as_a_digest_and_always_expires() -> None:
    user = make_user()
    token, secret = make_token(user, name="import", days=30)
    stored = ApiToken.objects.get()
    assert secret not in str(ApiToken.objects.values().get())
    assert secret.startswith(stored.token_key)
    assert stored.expiry is not None and timedelta(days=29) < stored.expiry - timezone.now() <= timedelta(days=30)
    for days in (0, 366):
        with pytest.raises(DomainError, match="between 1 and 365 days"):
            make_token(user, name="x", days=days)
    with pytest.raises(DatabaseError), transaction.atomic():
        ApiToken.objects.create(user, expiry=None, name="for ever")
    withdraw_token(token, by=user)
    assert not ApiToken.objects.exists()
    assert [(entry["action"], entry["token"]) for entry in journal("token")] == [
        ("made", stored.token_key),
        ("withdrawn", stored.token_key),
    ]


# ── Settings and guidelines ──────────────────────────────────────────────────────────────────────────────────────


def test_a_setting_is_changed_once_and_the_journal_keeps_both_values(project: Project, boss: User) -> None:
    changed = services.update_settings(project, boss, judgments_per_comparison=3, gold_every=20, name="Helpful")
    assert changed == {"judgments_per_comparison": 3}
    project.refresh_from_db()
    assert project.judgments_per_comparison == 3
    entry = {"action": "changed", "before": {"judgments_per_comparison": 1}, "after": {"judgments_per_comparison": 3}}
    assert journal("settings")[1:] == [entry]
    assert services.update_settings(project, boss, judgments_per_comparison=3) == {}
    assert len(journal("settings")) == 2


def test_a_changed_number_of_people_is_asked_of_what_is_there(
    project: Project, boss: User, django_capture_on_commit_callbacks: Callable
) -> None:
    services.add_member(project, boss)
    once, overlap, gold = (make_comparison(project) for _ in range(3))
    project.comparisons.filter(pk=overlap.pk).update(required_count=4)
    project.comparisons.filter(pk=gold.pk).update(is_gold=True)
    held = services.claim_assignments(annotator=services.annotator_for(boss), project=project)
    assert {assignment.comparison_id for assignment in held} == {once.pk, overlap.pk}

    def ask(count: int) -> list[int]:
        before = project.judgments_per_comparison
        services.update_settings(project, boss, judgments_per_comparison=count)
        with django_capture_on_commit_callbacks(execute=True):
            services.ask_of_existing(project, before=before, by=boss)
        return list(project.comparisons.order_by("pk").values_list("required_count", flat=True))

    assert ask(3) == [3, 4, 1]
    assert project.comparisons.get(pk=once.pk).tier == 0  # held by one, open to two more
    assert ask(5) == [5, 5, 1]
    project.comparisons.filter(pk=once.pk).update(assigned_count=2)
    assert ask(1) == [2, 1, 1]  # nothing falls below who is at it
    assert journal("settings")[-1] == {"action": "asked of existing", "before": 5, "after": 1}


def test_serving_topic_by_topic_puts_the_queue_in_that_order(
    project: Project, boss: User, django_capture_on_commit_callbacks: Callable
) -> None:
    topics = ["rain", "snow"] * 4
    for topic in topics:
        comparison = make_comparison(project)
        Prompt.objects.filter(pk=comparison.prompt_id).update(topic=topic)
    with django_capture_on_commit_callbacks(execute=True):
        services.update_settings(project, boss, topic_batches=True)
    order = [
        comparison.prompt.topic for comparison in project.comparisons.select_related("prompt").order_by("queue_key")
    ]
    assert order in (sorted(topics), sorted(topics, reverse=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"judgments_per_comparison": 0}, "At least one person"),
        ({"overlap_share": 0.2, "overlap_count": 1}, "more people than the rest"),
        ({"overlap_share": 1.2}, "between 0 and 100 %"),
        ({"escalate_to": 3}, "at least 4"),
        ({"name": "  "}, "needs a name"),
        ({"protocol": {"scale": "nine"}}, '"nine"'),
        ({"protocol": {"aspects": [{"name": "Bad", "label": "Bad"}]}}, "lower-case"),
        ({"guidelines": "x"}, "unknown"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    project: Project, boss: User, changes: dict, sentence: str
) -> None:
    before = Project.objects.values().get()
    with pytest.raises(DomainError, match=sentence):
        services.update_settings(project, boss, topic_batches=True, **changes)
    assert Project.objects.values().get() == before
    assert len(journal("settings")) == 1


def test_every_preset_can_be_put_in_place(project: Project, boss: User) -> None:
    for _label, protocol in PRESETS.values():
        services.update_settings(project, boss, protocol=protocol)
        project.refresh_from_db()
        assert Protocol.of(project) == protocol


def test_judgments_keep_the_meaning_of_their_scale(project: Project, boss: User) -> None:
    helpful = Aspect("helpfulness", "Helpfulness", 1, 5)
    services.update_settings(project, boss, protocol=Protocol(aspects=(helpful,)))
    services.update_settings(project, boss, protocol=Protocol(aspects=(Aspect("helpfulness", "Helpfulness", 1, 7),)))
    services.update_settings(project, boss, protocol=Protocol(aspects=(helpful,)))  # nobody has judged: all is open
    make_judgment(make_comparison(project))
    with pytest.raises(DomainError, match="judgments on its present scale"):
        services.update_settings(project, boss, protocol=Protocol(scale=Scale.BINARY, aspects=(helpful,)))
    with pytest.raises(DomainError, match="scores of Helpfulness"):
        services.update_settings(
            project, boss, protocol=Protocol(aspects=(Aspect("helpfulness", "Helpfulness", 0, 5),))
        )
    safe = Aspect("safety", "Safety", 0, 2)
    services.update_settings(project, boss, protocol=Protocol(aspects=(safe,), chips=("shorter",)))
    project.refresh_from_db()
    assert Protocol.of(project).aspects == (safe,)


def test_guidelines_have_versions_that_stay(project: Project, boss: User) -> None:
    assert services.edit_guidelines(project, "Be fair.\r\n", boss) == 1
    assert services.edit_guidelines(project, "Be fair.", boss) == 1  # the same wording is no version
    assert services.edit_guidelines(project, "Be fair and quick.", boss, based_on=1) == 2
    with pytest.raises(ConflictError, match="Version 2 came in force"):
        services.edit_guidelines(project, "Be slow.", boss, based_on=1)
    project.refresh_from_db()
    assert (project.guidelines, project.guideline_version) == ("Be fair and quick.", 2)
    assert list(GuidelineVersion.objects.order_by("version").values_list("version", "text")) == [
        (1, "Be fair."),
        (2, "Be fair and quick."),
    ]
    assert [entry.get("version") for entry in journal("settings")] == [None, 1, 2]
    assert all("fair" not in str(entry) for entry in journal())  # the journal holds no texts


def test_a_project_that_begins_with_guidelines_begins_with_their_first_version(boss: User) -> None:
    project = services.create_project(slug="x", name="X", guidelines="Be fair.", by=boss)
    assert (project.guideline_version, GuidelineVersion.objects.get().text) == (1, "Be fair.")


# ── The journal ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_database_refuses_to_change_or_delete_what_happened(project: Project) -> None:
    event = Event.objects.get()
    for change in (
        lambda: Event.objects.filter(pk=event.pk).update(kind="vote"),
        lambda: Event.objects.filter(pk=event.pk).delete(),
        lambda: Event.objects.filter(pk=0).update(kind="vote"),
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()
    assert Event.objects.get() == event
