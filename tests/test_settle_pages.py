"""The pages on which a reviewer settles what waits."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotation.answer import Answer, MarkedSpan
from annotation.models import Adjudication, Assignment, Comparison, Flag, Gold, Judgment, Membership, Project, Role
from annotation.pages.settle import SHOWN
from annotation.protocol import DEFAULT_ASPECTS, Axis, Demand, Protocol
from annotation.services import annotator_for, submit_judgment
from annotation.services import quality as services
from annotation.services.projects import update_settings
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_ranking, make_user
from tests.votes import disputed, make_vote, waits

pytestmark = pytest.mark.django_db


def signed_in(project: Project, role: Role) -> Client:
    user = make_user()
    Membership.objects.create(project=project, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


def settle_url(comparison: Comparison) -> str:
    return reverse("settle", args=[comparison.project.slug, comparison.pk])


def a_is_on_the_left(page: str, comparison: Comparison) -> bool:
    return page.index(comparison.response_a.text) < page.index(comparison.response_b.text)


def test_only_reviewers_settle_and_only_admins_keep_gold() -> None:
    comparison = disputed()
    project = comparison.project
    pages = [reverse("adjudicate", args=[project.slug]), settle_url(comparison)]
    quality, gold = (reverse(name, args=[project.slug]) for name in ("project_quality", "project_gold"))
    expected = {Role.ANNOTATOR: (403, 403, 403), Role.REVIEWER: (200, 200, 403), Role.ADMIN: (200, 200, 200)}
    for role, (on_pages, on_quality, on_gold) in expected.items():
        client = signed_in(project, role)
        assert [client.get(page).status_code for page in pages] == [on_pages] * 2
        assert (client.get(quality).status_code, client.get(gold).status_code) == (on_quality, on_gold)
    stranger = signed_in(make_project(), Role.ADMIN)
    assert [stranger.get(page).status_code for page in [*pages, quality, gold]] == [404] * 4
    assert Client().get(pages[0]).status_code == 302
    elsewhere = reverse("settle", args=[make_project_of(stranger).slug, comparison.pk])
    assert stranger.get(elsewhere).status_code == 404


def make_project_of(client: Client) -> Project:
    return Membership.objects.get(user=client.session["_auth_user_id"]).project


def test_the_page_is_blind_and_turns_the_votes_with_the_sides() -> None:
    project = make_project()
    client = signed_in(project, Role.REVIEWER)
    sides = set()
    for number in range(40):
        comparison = make_comparison(project, a_text=f"First text {number}.", b_text=f"Second text {number}.")
        judgment = make_vote(comparison, make_annotator(make_user(f"secret-{number}")), -3)
        Judgment.objects.filter(pk=judgment.pk).update(note="Because <b>so</b>.", chips=["clearer"])
        make_vote(comparison, make_annotator(), 1)
        page = client.get(settle_url(comparison)).content.decode()
        left = a_is_on_the_left(page, comparison)
        sides.add(left)
        assert ("A much better" if left else "B much better") in page.split("What people said")[1].split("Final")[0]
        assert "Because &lt;b&gt;so&lt;/b&gt;." in page and "clearer" in page
        for hidden in (f"secret-{number}", comparison.response_a.source.name, comparison.response_b.source.name):
            assert hidden not in page
        assert a_is_on_the_left(client.get(settle_url(comparison)).content.decode(), comparison) == left
        if number >= 5 and len(sides) == 2:
            break
    assert sides == {True, False}  # drawn for each comparison


def test_reviewers_see_all_that_was_said_and_turned_to_their_sides() -> None:
    project = make_project()
    protocol = Protocol(
        aspects=DEFAULT_ASPECTS, axes=(Axis("harmless", "Which is less harmful?"),), spans=True,
        edit_demand=Demand.OPTIONAL,
    )  # fmt: skip
    update_settings(project, None, protocol=protocol)
    client = signed_in(project, Role.ADMIN)
    comparison = make_comparison(project, a_text="Nine is **a prime** number.", b_text="Nine is odd.")
    assignment = Assignment.objects.create(
        comparison=comparison, annotator=make_annotator(), project=project, a_shown_on_left=True,
        lease_expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    submit_judgment(
        assignment_id=assignment.public_id,
        annotator=assignment.annotator,
        judgment_id=uuid4(),
        answer=Answer(
            choice="-2",
            ratings={aspect.name: [4, 2] for aspect in DEFAULT_ASPECTS},
            axes={"harmless": 1},
            spans=[MarkedSpan(0, 8, 19, "factual", "It is <i>3 × 3</i>.")],
            edited_text="Nine is no prime number.",
            edit_seconds=12,
        ),
    )
    page = client.get(settle_url(comparison)).content.decode()
    a, b = ("A", "B") if page.index("<strong>a prime") < page.index("Nine is odd.") else ("B", "A")
    said = re.sub(
        r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("What people said")[1].split("The final verdict")[0])
    )
    assert f"Which is less harmful? {b} slightly better" in said
    first, second = ((a, 4), (b, 2)) if a == "A" else ((b, 2), (a, 4))
    assert f"Helpfulness {first[0]} {first[1]} · {second[0]} {second[1]}" in said
    assert said.index("Helpfulness") < said.index("Fluency") < said.index("Safety")  # as the protocol asks
    assert f"factual error in {a} a prime It is &lt;i&gt;3 × 3&lt;/i&gt;." in said
    assert f"Edited {a}, in 12 seconds" in said and "no prime" in re.sub(" +", " ", said)
    page = client.get(reverse("prompt_detail", args=[project.slug, comparison.prompt_id])).content.decode()
    assert "Marked as wrong" in page and "a prime</q>" in page and "It is &lt;i&gt;3 × 3&lt;/i&gt;." in page


def test_a_verdict_is_stored_in_content_order_and_the_next_one_comes() -> None:
    project = make_project()
    client = signed_in(project, Role.REVIEWER)
    older, newer = disputed(project), disputed(project)
    first = client.get(reverse("adjudicate", args=[project.slug]))
    assert [line.comparison for line in first.context["lines"]] == [newer, older]
    left = a_is_on_the_left(client.get(settle_url(newer)).content.decode(), newer)
    answer = client.post(settle_url(newer), {"choice": "-2", "note": " Clear. "})
    assert answer.status_code == 302 and answer["Location"] == settle_url(older)
    stored = Adjudication.objects.get()
    assert (stored.preference, stored.strength, stored.note) == (("a", -2) if left else ("b", 2)) + ("Clear.",)
    answer = client.post(settle_url(older), {"choice": "neither"})
    assert answer["Location"] == reverse("adjudicate", args=[project.slug])
    assert Adjudication.objects.get(comparison=older).preference == "neither"
    assert client.get(answer["Location"]).context["lines"] == []

    shown = client.get(settle_url(newer)).context
    assert (shown["chosen"], shown["note"]) == ("-2", "Clear.")
    client.post(settle_url(newer), {"choice": "0", "based_on": shown["standing"].pk})
    assert Adjudication.objects.get(comparison=newer, superseded_at=None).preference == "tie"


def shown_texts(page: str, *texts: str) -> list[str]:
    return sorted(texts, key=page.index)


def test_a_ranking_is_settled_as_it_looks_and_stored_in_content_order() -> None:
    project = make_project()
    client = signed_in(project, Role.REVIEWER)
    texts = ("Text one.", "Text two.", "Text three.", "Text four.")
    comparison = make_ranking(project, *texts)
    make_judgment(comparison, "ranked", ranking=[1, 2, 3, 4])
    make_judgment(comparison, "ranked", ranking=[2, 1, 1, 3])
    services.mark_for_review([comparison.pk])
    page = client.get(settle_url(comparison)).content.decode()
    shown = shown_texts(page, *texts)
    names = dict(zip(shown, "ABCD", strict=True))
    said = page.split("What people said")[1].split("Put them in order")[0]
    assert " &gt; ".join(names[text] for text in texts) in said  # the first person's
    for hidden in (comparison.response_a.source.name, comparison.response_b.source.name):
        assert hidden not in page

    url = settle_url(comparison)
    missing = client.post(url, {"rank": ["1", "", "2", "2"], "note": "Kept."})
    assert missing.status_code == 422 and "Give every response a rank" in missing.content.decode()
    assert [rank for _side, rank in missing.context["sides"]] == ["1", "", "2", "2"]
    assert missing.context["note"] == "Kept."
    assert client.post(url, {}).status_code == 422
    assert client.post(url, {"rank": ["1", "2", "3", "5"]}).status_code == 422
    assert not Adjudication.objects.exists()

    ranks = {"Text one.": "4", "Text two.": "1", "Text three.": "2", "Text four.": "2"}
    answer = client.post(url, {"rank": [ranks[text] for text in shown]})
    assert answer.status_code == 302
    stored = Adjudication.objects.get()
    assert (stored.preference, stored.strength, stored.ranking) == ("ranked", None, [3, 1, 2, 2])
    again = client.get(url).context
    assert [rank for _side, rank in again["sides"]] == [{"4": "3"}.get(ranks[text], ranks[text]) for text in shown]
    both = sorted([names["Text three."], names["Text four."]])
    assert again["standing_label"] == f"{names['Text two.']} > {both[0]} = {both[1]} > {names['Text one.']}"
    client.post(url, {"choice": "neither", "rank": ["1"] * 4, "based_on": stored.pk})
    assert Adjudication.objects.get(superseded_at=None).preference == "neither"
    assert "make_gold" not in signed_in(project, Role.ADMIN).get(url).content.decode()


def test_in_a_project_of_rankings_a_pair_is_settled_by_ranks_too() -> None:
    project = make_project()
    Project.objects.filter(pk=project.pk).update(protocol={"scale": "ranking"})
    client = signed_in(project, Role.REVIEWER)
    comparison = make_comparison(project)
    url = settle_url(comparison)
    left = a_is_on_the_left(client.get(url).content.decode(), comparison)
    assert client.post(url, {"rank": ["2", "1"]}).status_code == 302
    stored = Adjudication.objects.get()
    assert (stored.preference, stored.ranking) == ("b" if left else "a", None)
    assert [rank for _side, rank in client.get(url).context["sides"]] == ["2", "1"]
    Project.objects.filter(pk=project.pk).update(protocol={"scale": "ranking", "allow_tie": False})
    assert "does not allow" in client.post(url, {"rank": ["1", "1"]}).content.decode()


@pytest.mark.parametrize(
    ("posted", "status", "sentence"),
    [
        ({}, 422, "Choose a verdict first"),
        ({"choice": "9"}, 422, "not one of the answers"),
        ({"choice": "1", "note": "x" * 10_001}, 422, "10,000"),
        ({"choice": "1", "note": "nul \0 inside"}, 422, "cannot be stored"),
    ],
)
def test_bad_input_is_told_and_kept(posted: dict[str, str], status: int, sentence: str) -> None:
    comparison = disputed()
    client = signed_in(comparison.project, Role.REVIEWER)
    answer = client.post(settle_url(comparison), posted)
    assert answer.status_code == status and sentence in answer.content.decode()
    assert not Adjudication.objects.exists() and waits(comparison)
    assert answer.context["note"] == posted.get("note", "")


def test_a_page_that_was_open_too_long_says_who_was_faster() -> None:
    comparison = disputed()
    slow, fast = (signed_in(comparison.project, Role.REVIEWER) for _ in range(2))
    fast.post(settle_url(comparison), {"choice": "1"})
    answer = slow.post(settle_url(comparison), {"choice": "-3", "note": "Mine."})
    assert answer.status_code == 409 and "meanwhile" in answer.content.decode()
    assert answer.context["chosen"] == "-3" and answer.context["note"] == "Mine."
    assert Adjudication.objects.count() == 1


def test_without_a_verdict() -> None:
    project = make_project()
    client = signed_in(project, Role.REVIEWER)
    left, broken = disputed(project), disputed(project)
    Flag.objects.create(comparison=broken, annotator=make_annotator(), reason="broken", note="It stops in mid-")
    page = client.get(settle_url(broken)).content.decode()
    assert "It stops in mid-" in page
    for comparison, action in [(left, "leave"), (broken, "withdraw")]:
        client.post(reverse("settle_without_verdict", args=[project.slug, comparison.pk]), {"action": action})
    assert client.get(reverse("adjudicate", args=[project.slug])).context["lines"] == []
    broken.refresh_from_db()
    assert broken.is_withdrawn and Flag.objects.get().resolved_at
    client.post(reverse("settle_without_verdict", args=[project.slug, broken.pk]), {"action": "restore"})
    broken.refresh_from_db()
    assert not broken.is_withdrawn


def test_an_admin_makes_gold_of_a_verdict() -> None:
    comparison = disputed()
    reviewer, admin = (signed_in(comparison.project, role) for role in (Role.REVIEWER, Role.ADMIN))
    assert "make_gold" not in reviewer.get(settle_url(comparison)).content.decode()
    assert reviewer.post(settle_url(comparison), {"choice": "1", "make_gold": "1"}).status_code == 403
    assert not Adjudication.objects.exists()
    left = a_is_on_the_left(admin.get(settle_url(comparison)).content.decode(), comparison)
    admin.post(settle_url(comparison), {"choice": "2", "make_gold": "1", "note": "Plain."})
    gold = Gold.objects.get()
    assert (gold.preference, gold.strength, gold.reason) == (("b", 2) if left else ("a", -2)) + ("Plain.",)


def test_the_list_is_paged_by_what_was_last_seen() -> None:
    project = make_project()
    client = signed_in(project, Role.REVIEWER)
    annotator, other = make_annotator(), make_annotator()
    comparisons = []
    for _ in range(SHOWN + 3):
        comparison = make_comparison(project)
        make_vote(comparison, annotator, -2)
        make_vote(comparison, other, 2)
        comparisons.append(comparison)
    services.mark_for_review(project=project)
    url = reverse("adjudicate", args=[project.slug])
    first = client.get(url).context
    assert [line.comparison for line in first["lines"]] == comparisons[:2:-1]
    Comparison.objects.filter(pk=comparisons[-1].pk).update(review_since=None)  # settled meanwhile: nothing moves
    second = client.get(url, {"before": first["next"]}).context
    assert [line.comparison for line in second["lines"]] == comparisons[2::-1] and second["next"] is None
    assert client.get(url, {"before": "nonsense_x"}).status_code == 200
    with CaptureQueriesContext(connection) as many:
        client.get(url)
    Comparison.objects.filter(pk__in=[comparison.pk for comparison in comparisons[3:]]).update(review_since=None)
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    assert len(many) == len(few)


def test_own_votes_are_marked_as_such() -> None:
    comparison = disputed()
    client = signed_in(comparison.project, Role.REVIEWER)
    me = annotator_for(Membership.objects.get(project=comparison.project).user)
    make_vote(comparison, me, 3)
    votes = client.get(settle_url(comparison)).context["votes"]
    assert sorted(vote.is_own for vote in votes) == [False, False, True]
