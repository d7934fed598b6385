"""The HTTP API, asked as programs ask it: by token, over the client that ships with it and by hand."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from drf_spectacular.validation import validate_schema

from annotation import services
from annotation.client import RefusedError, Touchstone
from annotation.models import (
    ApiToken,
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    ProjectSource,
    QueueTier,
    ResponseSource,
    Role,
)
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judged_project,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_user,
)


def token_for(user: User, *, days: float = 1) -> str:
    return ApiToken.objects.create(user, expiry=timedelta(days=days))[1]


def caller(user: User, **options: float) -> Client:
    return Client(headers={"Authorization": f"Token {token_for(user, **options)}"})


def member(project: Project, role: Role) -> User:
    user = make_user()
    Membership.objects.create(project=project, user=user, role=role)
    return user


@pytest.mark.django_db
def test_a_stranger_an_expired_token_and_a_withdrawn_one_are_refused() -> None:
    user = make_user()
    assert Client().get("/api/v1/projects/").status_code == 401
    assert caller(user).get("/api/v1/projects/").status_code == 200
    assert caller(user, days=-1).get("/api/v1/projects/").status_code == 401
    here = caller(user)
    ApiToken.objects.filter(user=user).delete()
    assert here.get("/api/v1/projects/").status_code == 401


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "lowest"),
    [
        ("", Role.ANNOTATOR),
        ("prompts/", Role.REVIEWER),
        ("responses/", Role.ADMIN),
        ("sources/", Role.REVIEWER),
        ("comparisons/", Role.REVIEWER),
        ("judgments/", Role.REVIEWER),
        ("turns/", Role.REVIEWER),
        ("ratings/", Role.REVIEWER),
        ("agreement/", Role.REVIEWER),
        ("adjudications/", Role.REVIEWER),
        ("flags/", Role.REVIEWER),
        ("annotators/", Role.REVIEWER),
        ("aggregation/", Role.REVIEWER),
        ("progress/", Role.REVIEWER),
        ("waiting/", Role.REVIEWER),
        ("guidelines/", Role.ANNOTATOR),
        ("duplicates/", Role.ADMIN),
        ("invitations/", Role.ADMIN),
        ("gold/", Role.ADMIN),
        ("leaderboard/", Role.REVIEWER),
        ("events/", Role.ADMIN),
        ("members/", Role.ADMIN),
        ("webhooks/", Role.ADMIN),
    ],
)
def test_an_endpoint_opens_to_its_role_and_hides_from_strangers(path: str, lowest: Role) -> None:
    project = make_judged_project(2)
    order = [Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN]
    for role in order:
        expected = 200 if order.index(role) >= order.index(lowest) else 403
        answer = caller(member(project, role)).get(f"/api/v1/projects/{project.slug}/{path}")
        assert answer.status_code == expected, (role, answer.content[:200])
    assert caller(make_user()).get(f"/api/v1/projects/{project.slug}/{path}").status_code == 404
    assert caller(make_user(is_staff=True)).get(f"/api/v1/projects/{project.slug}/{path}").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_sources_are_those_of_the_project_however_they_came(tmp_path: Path) -> None:
    project, other = make_project("here"), make_project("there")
    ours = make_comparison(project)
    make_comparison(other)
    make_response(ours.prompt, ours.response_a.source)
    call_command("import_preferences", _judged_file(tmp_path), project="here", json=True, stdout=io.StringIO())
    listed = caller(make_user(is_staff=True)).get("/api/v1/projects/here/sources/").json()
    expected = ResponseSource.objects.filter(responses__prompt__project=project).distinct()
    assert [source["name"] for source in listed] == sorted(expected.values_list("name", flat=True))
    assert len(listed) > 2
    assert ProjectSource.objects.filter(project=project).count() == len(listed)  # each noted once


@pytest.mark.django_db
def test_a_program_says_what_people_judge_first() -> None:
    project = make_project()
    unsure, sure = make_comparison(project), make_comparison(project)
    elsewhere = make_comparison()
    url = f"/api/v1/projects/{project.slug}/uncertainties/"

    def post(role: Role, *values: tuple[int, float]) -> Any:
        rows = [{"comparison": pk, "uncertainty": value} for pk, value in values]
        body = json.dumps({"uncertainties": rows})
        return caller(member(project, role)).post(url, body, content_type="application/json")

    given = [(unsure.pk, 0.9), (sure.pk, 0.2), (elsewhere.pk, 1.0)]
    assert post(Role.REVIEWER, *given).status_code == 403
    assert post(Role.ADMIN, (unsure.pk, 1.5)).status_code == 400
    assert post(Role.ADMIN, *given).json() == {"comparisons": 2}
    tiers = dict(Comparison.objects.values_list("pk", "tier"))
    assert tiers == {unsure.pk: QueueTier.UNCERTAIN, sure.pk: QueueTier.NEW, elsewhere.pk: QueueTier.NEW}
    assert Event.objects.get(project=project, kind="edit").data == {"action": "uncertainties", "comparisons": 2}
    person = make_annotator(project=project)
    Membership.objects.filter(user=person.user).update(served_count=1)
    first = services.claim_assignments(annotator=person, project=project)[0]
    assert first.comparison_id == unsure.pk


@pytest.mark.django_db
def test_a_list_is_paged_by_key_and_costs_the_same_on_every_page(django_assert_num_queries) -> None:
    project = make_project()
    for _ in range(7):
        make_prompt(project)
    here = caller(member(project, Role.REVIEWER))
    url, seen, pages = f"/api/v1/projects/{project.slug}/prompts/?page_size=3", [], 0
    while url:
        with django_assert_num_queries(5):  # the token, the person's other tokens, project, role, rows
            answer = here.get(url).json()
        seen += [row["id"] for row in answer["results"]]
        url, pages = answer["next"], pages + 1
    assert (pages, len(seen)) == (3, 7)
    assert seen == sorted(set(seen))


@pytest.mark.django_db
def test_a_program_judges_blind_and_once() -> None:
    comparison = make_comparison(a_text="The first answer.", b_text="The second answer.")
    here = caller(member(comparison.project, Role.ANNOTATOR))
    answer = here.post(f"/api/v1/projects/{comparison.project.slug}/claim/")
    [item] = answer.json()
    assert set(item["responses"]) == {"The first answer.", "The second answer."}
    for source in (comparison.response_a.source.name, comparison.response_b.source.name):
        assert source not in answer.content.decode()
    left_is_a = item["responses"][0] == "The first answer."
    body = json.dumps({"judgment": str(uuid4()), "choice": "-2"})
    url = f"/api/v1/assignments/{item['assignment']}/judgment/"
    for _ in range(2):
        assert here.post(url, body, content_type="application/json").status_code == 200
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength) == (("a", -2) if left_is_a else ("b", 2))
    other = json.dumps({**json.loads(body), "choice": "3"})
    conflict = here.post(url, other, content_type="application/json")
    assert conflict.status_code == 409
    assert "stored already" in conflict.json()["detail"]
    stranger = caller(member(comparison.project, Role.ANNOTATOR))
    assert stranger.post(url, body, content_type="application/json").status_code == 404
    nonsense = json.dumps({"judgment": str(uuid4()), "choice": "11"})
    assert here.post(url, nonsense, content_type="application/json").status_code == 422


@pytest.mark.django_db
def test_what_does_not_fit_is_named_and_nothing_is_half_done() -> None:
    project = make_project()
    here = caller(member(project, Role.ADMIN))
    rows = [
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
    ]
    answer = here.post(f"/api/v1/projects/{project.slug}/prompts/", json.dumps(rows), content_type="application/json")
    assert answer.status_code == 400
    assert "user" in str(answer.json())
    assert not project.prompts.exists()
    prompt = make_prompt(project)
    rows = [{"prompt": prompt.pk, "source": "x", "text": "a"}, {"prompt": 0, "source": "x", "text": "b"}]
    answer = here.post(
        f"/api/v1/projects/{project.slug}/responses/", json.dumps(rows), content_type="application/json"
    )
    assert (answer.status_code, answer.json()["detail"]) == (422, "row 1: this project has no prompt 0.")
    assert not prompt.responses.exists()
    assert here.get(f"/api/v1/projects/{project.slug}/judgments/?comparison=x").status_code == 422


@pytest.mark.django_db
def test_one_caller_cannot_ask_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from rest_framework.throttling import UserRateThrottle

    monkeypatch.setattr(UserRateThrottle, "THROTTLE_RATES", {"user": "3/min", "anon": "3/min"})
    here = caller(make_user())
    answers = [here.get("/api/v1/projects/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


@pytest.mark.django_db
def test_the_description_is_valid_and_its_page_asks_no_other_site() -> None:
    here = caller(make_user())
    answer = here.get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    schema = json.loads(answer.content)
    validate_schema(schema)
    names = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()
             if isinstance(operation, dict)]  # fmt: skip
    assert len(names) == len(set(names)) > 20
    page = here.get("/api/docs/").content.decode()
    assert "swagger-ui-bundle" in page
    assert "//cdn" not in page
    assert "https://" not in page


@pytest.mark.django_db(transaction=True)
def test_the_client_goes_round_the_loop(live_server, tmp_path: Path) -> None:
    staff = make_user(is_staff=True)
    with Touchstone(live_server.url, token_for(staff)) as site:
        project = site.create_project("by-api", "By API")
        assert (
            project.add_prompts(
                {"messages": [{"role": "user", "content": f"Question {n}?"}], "tags": ["difficulty:hard"] * 2}
                for n in range(3)
            )
            == 3
        )
        assert project.add_prompts([{"messages": [{"role": "user", "content": "Question 0?"}]}]) == 0
        prompts = list(project.prompts())
        assert [prompt["tags"] for prompt in prompts] == [["difficulty:hard"]] * 3
        responses = project.add_responses(
            {"prompt": prompt["id"], "source": name, "text": f"{name} says {prompt['id']}"}
            for prompt in prompts
            for name in ("polite", "rude")
        )
        by_prompt = {prompt["id"]: [r["id"] for r in responses if r["prompt"] == prompt["id"]] for prompt in prompts}
        assert project.add_comparisons(by_prompt.values()) == 3
        assert project.add_member(staff.username)["role"] == "annotator"
        while items := project.claim():
            item = items[0]
            left_is_polite = item.responses[0].startswith("polite")
            site.judge(item, "-2" if left_is_polite else "2", note="kinder")
        judgments = list(project.judgments(live=True))
        assert [(judgment["strength"], judgment["note"]) for judgment in judgments] == [(-2, "kinder")] * 3
        out = tmp_path / "pairs.jsonl"
        done = project.export("dpo", out)
        assert (done["rows"], done["dropped"]) == (3, {})
        assert project.export("dpo", tmp_path / "sure.jsonl", min_strength=3)["dropped"] == {"weak": 3}
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert all(row["chosen"][0]["content"].startswith("polite") for row in rows)
        assert len(rows) == 3
        again = project.import_file(_judged_file(tmp_path))
        assert again["judgments"] == 1
        with pytest.raises(RefusedError, match="kind"):
            project.export("essays", tmp_path / "essays.jsonl")
        with pytest.raises(RefusedError, match="it is one of half, drop, davidson"):
            project.leaderboard(ties="none")
        assert {row["source"] for row in project.leaderboard()} >= {"polite", "rude"}


def _judged_file(folder: Path) -> Path:
    row = {
        "id": "1",
        "group": "g",
        "prompt": "What is up?",
        "responses": [{"model": "x", "text": "This."}, {"model": "y", "text": "That."}],
        "annotations": [{"annotator": "p", "human": True, "preferred_index": 0, "tie": False}],
    }
    path = folder / "judged.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.django_db
def test_superseded_judgments_are_told_apart() -> None:
    comparison = make_comparison()
    make_judgment(comparison, "a", -1)
    here = caller(member(comparison.project, Role.REVIEWER))
    rows = here.get(f"/api/v1/projects/{comparison.project.slug}/judgments/?live=true").json()["results"]
    assert [(row["preference"], row["strength"], row["error_spans"]) for row in rows] == [("a", -1, [])]


@pytest.mark.django_db
def test_settings_change_by_name_and_only_for_admins() -> None:
    project = make_project()
    url = f"/api/v1/projects/{project.slug}/"

    def patch(role: Role, **changes: object) -> tuple[int, dict]:
        answer = caller(member(project, role)).patch(url, json.dumps(changes), content_type="application/json")
        return answer.status_code, answer.json()

    assert patch(Role.REVIEWER, name="Other")[0] == 403
    status, stored = patch(Role.ADMIN, guidelines="Be kind.", judgments_per_comparison=3, protocol={"spans": True})
    assert (status, stored["guideline_version"], stored["judgments_per_comparison"]) == (200, 1, 3)
    assert stored["protocol"] == {"spans": True}
    assert patch(Role.ADMIN, judgments_per_comparison="three")[0] == 400
    for changes, word in (
        ({"slug": "x"}, "slug"),
        ({"protocol": {"scal": 1}}, "scal"),
        ({"overlap_share": 2}, "share"),
    ):
        status, refusal = patch(Role.ADMIN, guidelines="Be rude.", **changes)
        assert status == 422
        assert word in refusal["detail"]
    project.refresh_from_db()
    assert project.guidelines == "Be kind."


@pytest.mark.django_db
def test_gold_and_last_words_are_given_by_program() -> None:
    comparison = make_comparison()
    url = f"/api/v1/projects/{comparison.project.slug}/"
    reviewer, admin = (caller(member(comparison.project, role)) for role in (Role.REVIEWER, Role.ADMIN))

    def post(here: Client, path: str, **body: object) -> tuple[int, dict]:
        answer = here.post(url + path, json.dumps(body), content_type="application/json")
        return answer.status_code, answer.json()

    status, stored = post(reviewer, "adjudications/", comparison=comparison.pk, preference="b", strength=2)
    assert (status, stored["preference"]) == (201, "b")
    assert post(admin, "adjudications/", comparison=comparison.pk, preference="a")[0] == 409
    assert post(admin, "adjudications/", comparison=comparison.pk, preference="a", based_on=stored["id"])[0] == 201
    assert post(reviewer, "adjudications/", comparison=comparison.pk, preference="a", strength=2)[0] == 422
    other = make_comparison(comparison.project)
    assert post(reviewer, "gold/", comparison=other.pk, preference="a")[0] == 403
    assert post(admin, "gold/", comparison=other.pk, preference="a", strength=-2)[0] == 201
    assert [row["comparison"] for row in admin.get(url + "gold/").json()["results"]] == [other.pk]
    assert admin.delete(f"{url}gold/{other.pk}/").status_code == 204
    assert post(admin, "gold/", comparison=make_comparison().pk, preference="a")[0] == 404


@pytest.mark.django_db
def test_an_invitation_by_program_opens_the_door() -> None:
    project = make_project()
    here = caller(member(project, Role.ADMIN))
    body = json.dumps({"role": "reviewer", "days": 2})
    answer = here.post(f"/api/v1/projects/{project.slug}/invitations/", body, content_type="application/json")
    assert answer.status_code == 201
    page = Client().get(answer.json()["link"])
    assert page.status_code == 200
    assert project.name in page.content.decode()


@pytest.mark.django_db
def test_a_program_skips_comes_back_and_flags() -> None:
    comparison = make_comparison()
    here = caller(member(comparison.project, Role.ANNOTATOR))
    [item] = here.post(f"/api/v1/projects/{comparison.project.slug}/claim/").json()

    def post(action: str, **body: object) -> int:
        url = f"/api/v1/assignments/{item['assignment']}/{action}/"
        return here.post(url, json.dumps(body), content_type="application/json").status_code

    assert post("skip", reason="bored") == 400
    assert [post("skip", reason="too_hard"), post("undo"), post("flag", reason="broken")] == [204, 204, 204]
    assert (comparison.assignments.get().status, comparison.flags.get().reason) == ("leased", "broken")


@pytest.mark.django_db(transaction=True)
def test_long_work_on_prompts_is_asked_for_and_followed() -> None:
    project = make_project()
    prompt = make_prompt(project, "Write to ann@posteo.net about it.")
    url = f"/api/v1/projects/{project.slug}/"
    here = caller(member(project, Role.ADMIN))

    def post(path: str, **body: object) -> tuple[int, dict]:
        answer = here.post(url + path, json.dumps(body), content_type="application/json")
        return answer.status_code, answer.json()

    status, job = post("prompts/edit/", ids=[prompt.pk], topic="letters", add_tags=["mail"])
    assert (status, job["status"]) == (202, "done")
    prompt.refresh_from_db()
    assert (prompt.topic, prompt.tags) == ("letters", ["mail"])
    assert post("prompts/edit/undo/")[0] == 202
    prompt.refresh_from_db()
    assert (prompt.topic, prompt.tags) == ("", [])
    assert post("prompts/edit/", ids=[prompt.pk])[0] == 422
    assert post("personal-data/find/")[1]["status"] == "done"
    assert post("personal-data/mask/", kinds=["email"], originals_may_be_overwritten=False)[0] == 400
    status, job = post("personal-data/mask/", kinds=["email"], originals_may_be_overwritten=True)
    assert (status, here.get(f"{url}data-jobs/{job['id']}/").json()["status"]) == (202, "done")
    prompt.refresh_from_db()
    assert "ann@" not in prompt.messages[0]["content"]
    assert post("duplicates/find/")[0] == 202
