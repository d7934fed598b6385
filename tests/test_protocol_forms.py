"""The form of every protocol over HTTP, as a browser without scripts sends it, and what goes wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.test import Client

from annotation import services
from annotation.models import Assignment, Comparison, ErrorSpan, Flag, FurtherResponse, Judgment, Project
from annotation.protocol import DEFAULT_ASPECTS, PRESETS, Axis, Demand, Protocol, Scale
from tests.factories import make_comparison, make_project, make_prompt, make_response, make_user

pytestmark = pytest.mark.django_db
FETCH = {"X-Requested-With": "fetch"}
PAGE = "/projects/asked/compare/"
LEFT_TEXT = "The **left** one says *two and two* is 5, and 5 it is."


def setting(protocol: Protocol, *, responses: int = 2, guidelines: str = "") -> tuple[Client, str]:
    """A project with one comparison, its first response shown on the left, and whoever judges it."""
    user = make_user()
    project = make_project("asked", members=[user])
    Project.objects.update(protocol=protocol.to_json(), guidelines=guidelines, guideline_version=int(bool(guidelines)))
    prompt = make_prompt(project)
    comparison = make_comparison(project, prompt=prompt, a_text=LEFT_TEXT, b_text="The right one.")
    for position in range(2, responses):
        response = make_response(prompt, text=f"Further {position}.")
        FurtherResponse.objects.create(comparison=comparison, position=position, response=response)
    Comparison.objects.update(response_count=responses)
    client = Client()
    client.force_login(user)
    client.get(PAGE)
    Assignment.objects.update(a_shown_on_left=True, display_order=list(range(responses)) if responses > 2 else None)
    return client, str(Assignment.objects.get().public_id)


def vote(client: Client, assignment: str, **fields: Any) -> HttpResponse:
    headers = fields.pop("headers", {})
    return client.post(
        f"/assignments/{assignment}/judgment",
        {"judgment_id": str(uuid4()), "responses": "2", **fields},
        headers=headers,
    )


def page_of(client: Client, assignment: str) -> str:
    return client.get(f"{PAGE}?item={assignment}").content.decode()


def checked(page: str) -> list[tuple[str, str]]:
    """Name and value of every box and button of the form that is on, where it can be seen."""
    return re.findall(r'<input type="(?:radio|checkbox)" name="([^"]+)" value="([^"]+)"[^>]* checked', page)


# ── Every scale ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["seven", "four", "eight", "binary"])
def test_a_scale_offers_its_verdicts_and_each_is_stored(name: str) -> None:
    protocol = PRESETS[name][1]
    client, assignment = setting(protocol)
    page = client.get(PAGE).content.decode()
    offered = re.findall(r'type="radio" name="choice" value="([^"]+)"', page)
    assert offered == [verdict.value for verdict in protocol.verdicts]
    for choice in offered:
        assert vote(client, assignment, choice=choice).status_code == 302
        assert ("choice", choice) in checked(page_of(client, assignment))
    assert Judgment.objects.filter(superseded_at=None).count() == 1


def test_binary_without_a_tie_has_two_answers() -> None:
    client, assignment = setting(Protocol(scale=Scale.BINARY, allow_tie=False, allow_neither=False))
    assert re.findall(r'name="choice" value="(\w+)"', client.get(PAGE).content.decode()) == ["left", "right"]
    assert vote(client, assignment, choice="0").status_code == 422


def test_separate_axes_scores_reasons_and_note_are_stored_and_stand_in_the_form_again() -> None:
    protocol = Protocol(
        axes=(Axis("harmless", "Which is less harmful?"),),
        aspects=DEFAULT_ASPECTS,
        chips=("factual", "clear & short"),
        edit_demand=Demand.OPTIONAL,
    )
    client, assignment = setting(protocol)
    scores = {f"rating-{aspect.name}-{side}": str(3 + side) for aspect in DEFAULT_ASPECTS for side in (0, 1)}
    answer = {"choice": "-2", "axis-harmless": "3", "chip": ["clear & short"], "note": "Because.", **scores}
    assert vote(client, assignment, **answer, edited_text="Better.\r\nStill.", edit_seconds="9").status_code == 302
    judgment = Judgment.objects.get()
    assert judgment.ratings == {aspect.name: [3, 4] for aspect in DEFAULT_ASPECTS}
    assert (judgment.axes, judgment.chips) == ({"harmless": 3}, ["clear & short"])
    assert (judgment.edit.edited.text, judgment.edit.seconds_spent) == ("Better.\nStill.", 9)

    for is_left in (True, False):  # turned round, the form shows what the person would then have said
        Assignment.objects.update(a_shown_on_left=is_left)
        page = page_of(client, assignment)
        on = set(checked(page))
        sign = 1 if is_left else -1
        assert {("choice", str(-2 * sign)), ("axis-harmless", str(3 * sign)), ("chip", "clear &amp; short")} <= on
        assert {("rating-safety-0", str(3 if is_left else 4)), ("rating-safety-1", str(4 if is_left else 3))} <= on
        assert "Because.</textarea>" in page and "Better.\nStill.</textarea>" in page


@pytest.mark.parametrize(
    ("protocol", "lacking", "sentence"),
    [
        (Protocol(aspects=DEFAULT_ASPECTS), {"choice": "1", "rating-safety-0": "3"}, "score every response"),
        (Protocol(axes=(Axis("harmless", "Less harmful?"),)), {"choice": "1"}, "answer this question"),
        (Protocol(note_demand=Demand.REQUIRED), {"choice": "1"}, "this project asks for it"),
        (Protocol(chips=("x",), chips_demand=Demand.REQUIRED), {"choice": "1"}, "this project asks for it"),
        (Protocol(edit_demand=Demand.REQUIRED), {"choice": "1"}, "improve the better response"),
        (Protocol(note_demand=Demand.OFF), {"choice": "1", "note": "But I want to."}, "does not ask for it"),
        (Protocol(), {"note": "No verdict."}, "Choose one of the steps"),
        (Protocol(), {"choice": "1", "rating-fluency-0": "9"}, "not an aspect of this project"),
        (Protocol(), {"choice": "1", "rating-x-12": "1"}, "cannot be read"),
        (Protocol(aspects=DEFAULT_ASPECTS), {"choice": "1", "rating-safety-0": "good"}, "cannot be read"),
        (Protocol(), {"choice": "1", "client_at": "yesterday"}, "cannot be read"),
        (Protocol(), {"choice": "1", "judgment_id": "17"}, "without an id"),
        (Protocol(), {"choice": "1", "guideline_version": "99"}, "no such version"),
        (Protocol(spans=True), {"choice": "1", "span": "{}"}, "cannot be read"),
        (Protocol(spans=True), {"choice": "1", "span": "[1"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_and_stores_nothing(
    protocol: Protocol, lacking: dict[str, str], sentence: str
) -> None:
    client, assignment = setting(protocol)
    for headers in ({}, FETCH):
        response = vote(client, assignment, **lacking, headers=headers)
        assert response.status_code == 422
        assert sentence in unescape(response.content.decode())
    assert not Judgment.objects.exists() and not ErrorSpan.objects.exists()


def test_a_refused_form_keeps_all_that_was_filled_in() -> None:
    protocol = Protocol(
        axes=(Axis("harmless", "Less harmful?"),),
        aspects=DEFAULT_ASPECTS,
        chips=("clear",),
        spans=True,
        edit_demand=Demand.OPTIONAL,
    )
    client, assignment = setting(protocol)
    filled: dict[str, Any] = {
        "choice": "2",
        "axis-harmless": "-1",
        "rating-fluency-1": "4",
        "chip": "clear",
        "note": "my long thoughts",
        "edited_text": "a better text",
        "passage": ["nowhere to be found"],
        "passage_position": ["1"],
        "passage_kind": ["logical"],
        "passage_note": ["hm"],
    }
    page = vote(client, assignment, **filled).content.decode()
    on = checked(page)
    assert on == [("choice", "2"), ("axis-harmless", "-1"), ("rating-fluency-1", "4"), ("chip", "clear")]
    assert all(text in page for text in ("my long thoughts</textarea>", "a better text</textarea>", 'value="hm"'))
    assert 'value="nowhere to be found"' in page and "Response B does not hold the passage" in page


# ── Rankings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def ranked(client: Client, assignment: str, ranks: Sequence[str], **more: Any) -> HttpResponse:
    return vote(client, assignment, rank=list(ranks), responses=str(len(ranks)), **more)


def test_a_ranking_works_by_number_fields_and_keeps_its_order() -> None:
    client, assignment = setting(PRESETS["ranking"][1], responses=4)
    Assignment.objects.update(display_order=[2, 0, 3, 1])
    page = client.get(PAGE).content.decode()
    assert page.count('name="rank"') == 4 and 'type="radio" name="choice"' not in page
    assert page.index("Further 2.") < page.index("<strong>left</strong>") < page.index("Further 3.")
    assert ranked(client, assignment, "3124").status_code == 302
    assert Judgment.objects.get().ranking == [1, 4, 3, 2]
    values = re.findall(r'name="rank"[^>]* value="(\d*)"', page_of(client, assignment))
    assert values == ["3", "1", "2", "4"]


@pytest.mark.parametrize(
    ("ranks", "allow_tie", "sentence"),
    [
        (["1", "", "2"], True, "Give every response a rank"),
        (["1", "1", "2"], False, "two responses have the same rank"),
        (["1", "2", "4"], True, "4 is no rank"),
        (["1", "2", "x"], True, "cannot be read"),
        (["1", "2"], True, "every one of the 3 responses"),
    ],
)
def test_an_order_that_is_none_is_refused_and_kept(ranks: list[str], allow_tie: bool, sentence: str) -> None:
    client, assignment = setting(Protocol(scale=Scale.RANKING, allow_tie=allow_tie), responses=3)
    response = ranked(client, assignment, ranks)
    page = response.content.decode()
    assert response.status_code == 422 and sentence in page
    assert re.findall(r'name="rank"[^>]* value="([^"]*)"', page)[: len(ranks)] == ranks
    assert not Judgment.objects.exists()


def test_ties_and_none_of_them() -> None:
    client, assignment = setting(PRESETS["ranking"][1], responses=3)
    ranked(client, assignment, "133")
    assert Judgment.objects.get(superseded_at=None).ranking == [1, 2, 2]
    ranked(client, assignment, ["", "", ""], choice="neither")
    assert Judgment.objects.get(superseded_at=None).preference == "neither"
    assert ("choice", "neither") in checked(page_of(client, assignment))


def test_three_responses_are_ranked_also_where_pairs_are_asked() -> None:
    client, assignment = setting(Protocol(axes=(Axis("harmless", "Less harmful?"),)), responses=3)
    page = client.get(PAGE).content.decode()
    assert 'data-scale="seven" hidden disabled' in page
    assert ranked(client, assignment, "213").status_code == 302
    assert Judgment.objects.get().ranking == [2, 1, 3]


# ── Passages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def span(**fields: Any) -> str:
    return json.dumps({"position": 0, "start": 0, "quote": "", "kind": "factual", "note": "", **fields})


def test_a_marked_passage_is_stored_in_the_text_as_written_and_shown_again() -> None:
    client, assignment = setting(Protocol(spans=True))
    shown = "The left one says two and two is 5, and 5 it is."
    last_five = shown.rindex("5")
    spans = [
        span(start=shown.index("left one"), quote="left one says two", note="wrong"),
        span(start=last_five, quote="5", kind="logical"),
    ]
    assert vote(client, assignment, choice="2", span=spans, headers=FETCH).status_code == 204
    stored = [LEFT_TEXT[row.start : row.end] for row in ErrorSpan.objects.order_by("start")]
    assert stored == ["left** one says *two", "5"]
    assert ErrorSpan.objects.get(kind="logical").start == LEFT_TEXT.rindex("5")

    fragment = client.post(f"/assignments/{assignment}/undo", headers=FETCH).content.decode()
    found = re.search(r'data-filled="([^"]+)"', fragment)
    assert found
    again = json.loads(unescape(found[1]))["spans"]
    assert [(row["start"], row["quote"], row["note"]) for row in again] == [
        (shown.index("left one"), "left one says two", "wrong"),
        (last_five, "5", ""),
    ]


def test_passages_can_be_typed_where_no_script_runs() -> None:
    client, assignment = setting(Protocol(spans=True))
    typed = {"passage": ["two and two", ""], "passage_position": ["0", "1"], "passage_kind": ["factual", "other"]}
    assert vote(client, assignment, choice="1", **typed, passage_note=["it is 4", ""]).status_code == 302
    row = ErrorSpan.objects.get()
    assert (LEFT_TEXT[row.start : row.end], row.kind, row.note) == ("two and two", "factual", "it is 4")
    assert 'value="two and two"' in page_of(client, assignment)


@pytest.mark.parametrize("text", ["x" * 200_000, "para **b** $x$\n\n" * 12_000, "مرحبا 😀 中文 " * 15_000])
def test_a_response_of_200_kb_is_shown_marked_and_edited(text: str) -> None:
    client, assignment = setting(Protocol(spans=True, edit_demand=Demand.OPTIONAL))
    judged = Comparison.objects.get().response_a
    type(judged).objects.filter(pk=judged.pk).update(text=text)
    assert client.get(PAGE).status_code == 200
    tail = text.strip()[-4:].strip()
    marked = span(start=len(text), quote=tail)
    edited = text[:-10] + "!"
    assert vote(client, assignment, choice="-1", span=marked, edited_text=edited, headers=FETCH).status_code == 204
    row = ErrorSpan.objects.get()
    assert text[row.start : row.end] == tail and row.start > len(text) - 30
    assert Judgment.objects.get().edit.edit_distance in (9, 10)


# ── Beside the vote ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_response_as_written_goes_only_to_whom_it_was_given() -> None:
    client, assignment = setting(Protocol())
    response = client.get(f"/assignments/{assignment}/text/0")
    assert response.content.decode() == LEFT_TEXT and response["Content-Type"].startswith("text/plain")
    assert response["X-Content-Type-Options"] == "nosniff"
    Assignment.objects.update(a_shown_on_left=False)
    assert client.get(f"/assignments/{assignment}/text/0").content.decode() == "The right one."
    assert client.get(f"/assignments/{assignment}/text/2").status_code == 404
    other = Client()
    other.force_login(make_user())
    assert other.get(f"/assignments/{assignment}/text/0").status_code == 404
    assert Client().get(f"/assignments/{assignment}/text/0").status_code == 302


def test_skips_and_flags_carry_their_reasons() -> None:
    client, assignment = setting(Protocol())
    page = client.get(PAGE).content.decode()
    assert 'value="too_hard"' in page and 'value="names_model"' in page
    assert client.post(f"/assignments/{assignment}/flag", {"reason": "names_model"}, headers=FETCH).status_code == 204
    assert Flag.objects.get().reason == "names_model"
    assert client.post(f"/assignments/{assignment}/flag", {"reason": "dull"}, headers=FETCH).status_code == 422
    assert Assignment.objects.get().status == "leased"
    assert client.post(f"/assignments/{assignment}/flag", {"reason": "broken"}).status_code == 302
    assert client.post(f"/assignments/{assignment}/skip", {"reason": "too_hard"}).status_code == 302
    assert Assignment.objects.get().skip_reason == "too_hard"


def test_guidelines_that_changed_meanwhile_are_told_and_the_vote_keeps_what_was_read() -> None:
    client, assignment = setting(Protocol(), guidelines="Be kind.")
    project = Project.objects.get()
    services.edit_guidelines(project, "Be *strict*.", by=None)
    response = vote(client, assignment, choice="1", guideline_version="1", headers=FETCH)
    assert response["X-Guideline-Version"] == "2"
    assert Judgment.objects.get().guideline_version == 1
    sent = client.get("/projects/asked/compare/guidelines", headers=FETCH)
    assert sent["X-Guideline-Version"] == "2" and "Be <em>strict</em>." in sent.content.decode()

    page = client.post(
        f"/assignments/{assignment}/judgment",
        {"judgment_id": str(uuid4()), "choice": "2", "guideline_version": "1"},
        follow=True,
    ).content.decode()
    assert "The guidelines changed." in page and 'href="/projects/asked/guidelines/"' in page


def test_an_account_that_was_closed_is_told_like_one_that_is_signed_out() -> None:
    client, assignment = setting(Protocol())
    type(make_user()).objects.update(is_active=False)
    response = vote(client, assignment, choice="1", headers=FETCH)
    assert response.status_code == 401 and "your votes wait in this browser" in response.content.decode()
    assert not Judgment.objects.exists()


def test_somebody_taken_off_the_project_is_told_by_the_page_that_asks_for_more() -> None:
    client, assignment = setting(Protocol())
    Project.objects.get().members.clear()
    response = client.get(PAGE, headers=FETCH)
    assert response.status_code == 403 and "no longer in this project" in response.content.decode()
    assert client.get(PAGE).status_code == 404
    assert vote(client, assignment, choice="1", headers=FETCH).status_code == 204
    assert Judgment.objects.count() == 1
