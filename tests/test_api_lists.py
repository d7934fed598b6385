"""Lists narrowed by program, and exports by rules: what is asked for is done or refused, never passed over."""

from __future__ import annotations

import json

import pytest
from django.utils import translation

from annotation.models import Batch, Comparison, Project, Prompt, Role
from tests.calling import Program
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_prompt

pytestmark = pytest.mark.django_db


def ids(answer: tuple[int, dict]) -> list[int]:
    status, body = answer
    assert status == 200, body
    return [row["id"] for row in body["results"]]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("prompts/", "qery"),
        ("comparisons/", "language"),
        ("judgments/", "annotator"),
        ("responses/", "source"),
        ("members/", "role"),
        ("agreement/", "axis"),
        ("export/dpo.jsonl", "maxspread"),
        ("gold/", "retired"),
        ("leaderboard/", "tie"),
    ],
)
def test_a_parameter_that_is_not_known_is_refused_by_name(path: str, name: str) -> None:
    status, refusal = Program(make_project(), Role.ADMIN).get(path, **{name: "x"})
    assert status == 422
    assert f"'{name}'" in refusal["detail"]


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("prompts/", {"state": "maybe"}),
        ("prompts/", {"archived": "maybe"}),
        ("prompts/", {"batch": "none"}),
        ("prompts/", {"query": "?"}),
        ("judgments/", {"live": "yes"}),
        ("events/", {"kind": "party"}),
        ("export/dpo.jsonl", {"max_spread": "wide"}),
        ("export/dpo.jsonl", {"drop_unfinished": "maybe"}),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(path: str, given: dict[str, str]) -> None:
    status, refusal = Program(make_project(), Role.ADMIN).get(path, **given)
    assert status == 422
    assert next(iter(given)) in refusal["detail"]


@pytest.fixture
def project() -> Project:
    """Twelve prompts about whales; two of them tagged, one of these archived; the first one judged, in a batch."""
    project = make_project()
    prompts = [make_prompt(project, f"What does whale {number} eat?") for number in range(12)]
    Prompt.objects.filter(pk__in=[prompts[3].pk, prompts[4].pk]).update(tags=["sea"])
    comparison = make_comparison(project, prompt=prompts[0], a_text="Krill.", b_text="Squid.")
    make_comparison(project, prompt=prompts[1])
    batch = Batch.objects.create(project=project, name="first week")
    Comparison.objects.filter(pk=comparison.pk).update(batch=batch)
    make_judgment(comparison, "a", -2)
    make_judgment(comparison, "a", -1)
    admin = Program(project, Role.ADMIN)
    assert admin.post("prompts/edit/", ids=[prompts[4].pk], archive=True)[0] == 202
    return project


def test_prompts_are_found_by_words_tags_and_state(project: Project) -> None:
    reviewer = Program(project, Role.REVIEWER)
    pks = list(project.prompts.order_by("pk").values_list("pk", flat=True))
    assert len(ids(reviewer.get("prompts/"))) == 12
    assert ids(reviewer.get("prompts/", query="krill")) == pks[:1]
    assert ids(reviewer.get("prompts/", query="zzz")) == []
    assert ids(reviewer.get("prompts/", tag="sea")) == [pks[3]]
    assert ids(reviewer.get("prompts/", tag="sea", archived="true")) in ([pks[4]], [])
    assert ids(reviewer.get("prompts/", archived="true")) == [pks[4]]
    assert ids(reviewer.get("prompts/", state="judged")) == pks[:1]
    assert ids(reviewer.get("prompts/", batch="first week")) == pks[:1]
    seen: list[int] = []
    status, page = reviewer.get("prompts/", query="whale", page_size=4)
    while True:
        seen += [row["id"] for row in page["results"]]
        assert (status, page["is_complete"]) == (200, True)
        if not page["next"]:
            break
        status, page = reviewer.get(page["next"].removeprefix("http://testserver"))
    assert seen == [pk for pk in pks if pk != pks[4]]


def test_comparisons_are_narrowed_as_on_their_page(project: Project) -> None:
    reviewer = Program(project, Role.REVIEWER)
    judged, waiting = project.comparisons.order_by("pk").values_list("pk", flat=True)
    assert ids(reviewer.get("comparisons/", state="judged")) == [judged]
    assert ids(reviewer.get("comparisons/", state="waiting")) == [waiting]
    assert ids(reviewer.get("comparisons/", batch="first week")) == [judged]
    assert ids(reviewer.get("comparisons/", lang="zz")) == []
    Comparison.objects.filter(pk=waiting).update(lang="zh")
    assert ids(reviewer.get("comparisons/", lang="zh")) == [waiting]


def test_only_admins_learn_what_measures_people(project: Project) -> None:
    asked = ("comparisons/", "comparisons/?state=waiting", f"comparisons/{Comparison.objects.all()[0].pk}/")
    for role, is_told in ((Role.REVIEWER, False), (Role.ADMIN, True)):
        program = Program(project, role)
        for path in asked:
            status, body = program.get(path)
            assert status == 200, body
            row = body["results"][0] if "results" in body else body
            assert ("is_gold" in row, "external_id" in row) == (is_told, is_told), (role, path)


def test_a_refusal_is_in_the_language_that_is_asked_for() -> None:
    program = Program(make_project(), Role.ANNOTATOR)
    program.http.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hans"
    status, refusal = program.post("rewrites/1/text/", text="  ")
    english = "There is no text yet. Write the response, or give the prompt back."
    with translation.override("zh-hans"):
        chinese = translation.gettext(english)
    assert chinese != english
    assert (status, refusal["detail"]) == (422, chinese)


def test_all_that_a_filter_lets_through_is_edited_at_once(project: Project) -> None:
    admin = Program(project, Role.ADMIN)
    status, job = admin.post("prompts/edit/", filter={"query": "whale", "state": "judged"}, topic="food")
    assert (status, job["result"]) == (202, {"changed": 1})
    assert project.prompts.filter(topic="food").count() == 1
    for body in ({"topic": "x"}, {"topic": "x", "ids": [1], "filter": {}}, {"topic": "x", "filter": {"qery": "a"}}):
        assert admin.post("prompts/edit/", body)[0] == 422
    assert admin.post("prompts/edit/", topic="x", filter={"state": "maybe"})[0] == 400


@pytest.mark.django_db(transaction=True)
def test_an_export_keeps_the_rules_and_says_what_they_left_out() -> None:
    project = make_project()
    people = [make_annotator() for _ in range(2)]
    for strengths in ((-3, -1), (-3, 3), (-1, -1)):
        comparison = make_comparison(project)
        for annotator, strength in zip(people, strengths, strict=True):
            make_judgment(comparison, "a" if strength < 0 else "b", strength, annotator=annotator)
    admin = Program(project, Role.ADMIN)
    url = f"/api/v1/projects/{project.slug}/export/dpo.jsonl"

    def export(**rules: str) -> tuple[int, dict]:
        answer = admin.http.get(url, rules)
        rows = answer.getvalue().splitlines()
        return len(rows), json.loads(answer.headers["Touchstone-Exported"])

    rows, said = export()
    assert (rows, said["rows"], said["dropped"]) == (2, 2, {"no_majority": 1})
    rows, said = export(max_spread="1")
    assert (rows, said["dropped"]) == (1, {"no_majority": 1, "spread": 1})
    rows, said = export(min_strength="1.5", humans_only="true")
    assert (rows, said["dropped"]["weak"]) == (1, 1)
    counted = admin.get("export/dpo/counts/", min_strength="1.5", humans_only="true")
    assert counted == (200, {name: said[name] for name in ("rows", "prompts", "dropped")})
    assert admin.get("export/dpo.jsonl", axis="harmless")[0] == 422  # nobody was asked yet
    assert admin.get("export/annotations.jsonl", max_spread=1)[0] == 422
