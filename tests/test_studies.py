"""Human evaluation: studies, the queue of responses to mark, and what of them reaches a browser."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Event,
    EventKind,
    Project,
    Response,
    ResponseSource,
    RubricRating,
    Study,
    StudyItem,
    StudyKind,
)
from annotation.services import Marks
from tests.factories import (
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
    make_user,
)

pytestmark = pytest.mark.django_db
GOOD = Marks(True, True, True, True, True)
BAD = Marks(True, False, True, True, False, note="Wrong year.")


def make_answered_project(count: int = 3, members: tuple[str, ...] = ("ann", "ben")) -> Project:
    project = make_project("studied", members=[make_user(name) for name in members])
    for number in range(count):
        prompt = make_prompt(project, f"Question {number}?")
        make_response(prompt, make_source("new-model"), f"New **answer** {number}.")
        make_response(prompt, make_source("old-model"), f"Old answer {number}, longer.")
    return project


def make_study(project: Project, kind: str = "rubric", **more: Any) -> Study:
    values: dict[str, Any] = {
        "project": project,
        "name": f"study-{Study.objects.count()}",
        "kind": StudyKind(kind),
        "source": make_source("new-model"),
        "against": make_source("old-model"),
        "prompts": project.prompts.all(),
    }
    return services.create_study(**values | more)


def person(name: str) -> Any:
    return services.annotator_for(User.objects.get(username=name))


def claim(name: str, project: Project) -> RubricRating | None:
    return services.claim_rating(annotator=person(name), project=project)


def rate_next(name: str, project: Project, marks: Marks = GOOD) -> RubricRating:
    held = claim(name, project)
    assert held is not None
    return services.submit_rating(rating_id=held.public_id, annotator=person(name), marks=marks)


# ── Making a study ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_same_bad_study_asks_about_each_prompt_once_and_takes_old_votes_along() -> None:
    project = make_answered_project(3)
    first = project.prompts.order_by("pk")[0]
    old, new = (first.responses.get(source__name=name) for name in ("old-model", "new-model"))
    services.create_comparisons(project, [(old, new)])
    judged = project.comparisons.get()
    make_judgment(judged, "b")
    study = make_study(project, "gsb", judgments_per_item=3)
    assert project.comparisons.count() == 3
    assert set(study.items.values_list("comparison__required_count", flat=True)) == {3}
    assert study.items.get(comparison=judged).is_own is False
    assert services.extend_study(study, project.prompts.all()) == 0
    prompt = make_prompt(project)
    for source in study.sources:
        make_response(prompt, source)
    assert services.extend_study(study, project.prompts.all()) == 1


def test_closing_a_study_withdraws_what_was_made_for_it_and_another_one_brings_it_back() -> None:
    project = make_answered_project(2)
    study = make_study(project, "gsb")
    services.close_study(study)
    assert services.claim_assignments(annotator=person("ann"), project=project) == []
    make_study(project, "gsb")
    assert len(services.claim_assignments(annotator=person("ann"), project=project)) == 2
    rubric = make_study(project, "rubric")
    services.close_study(rubric)
    assert claim("ann", project) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "  "}, "a name"),
        ({"kind": StudyKind.GSB, "against": None}, "compares two models"),
        ({"against": "same"}, "with itself"),
        ({"judgments_per_item": 0}, "Between 1 and 50"),
        ({"prompts": []}, "nothing to judge"),
    ],
    ids=["no name", "one model", "the same model", "nobody", "no prompts"],
)
def test_what_cannot_be_a_study_is_refused_whole(change: dict[str, Any], sentence: str) -> None:
    project = make_answered_project(1)
    if change.get("against") == "same":
        change = {"against": make_source("new-model")}
    with pytest.raises(DomainError, match=sentence):
        make_study(project, **change)
    assert not Study.objects.exists() and not StudyItem.objects.exists()


def test_a_name_is_taken_once() -> None:
    project = make_answered_project(1)
    make_study(project, name="spring")
    with pytest.raises(DomainError, match="spring already"):
        make_study(project, name="spring")


def test_a_rubric_study_of_two_keeps_to_prompts_that_both_answered() -> None:
    project = make_answered_project(2)
    make_response(make_prompt(project), make_source("new-model"))
    assert make_study(project).items.count() == 4
    assert make_study(project, against=None).items.count() == 3


# ── Rating ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_people_never_rate_the_same_response_where_one_is_enough() -> None:
    project = make_answered_project(2)
    make_study(project, against=None)
    ann, ben = claim("ann", project), claim("ben", project)
    assert ann and ben and ann.item_id != ben.item_id
    again = claim("ann", project)
    assert again and again.pk == ann.pk  # it stays theirs over a reload
    services.submit_rating(rating_id=ann.public_id, annotator=person("ann"), marks=GOOD)
    assert claim("ann", project) is None


@pytest.mark.django_db(transaction=True)
def test_many_who_ask_at_once_get_different_responses() -> None:
    names = tuple(f"p{number}" for number in range(6))
    project = make_answered_project(3, names)
    make_study(project)  # six responses
    got: list[int] = []

    def ask(name: str) -> None:
        try:
            held = claim(name, project)
            got.append(held.item_id if held else 0)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [item for item in got if item]
    assert len(set(taken)) == len(taken) >= 1
    assert not StudyItem.objects.filter(assigned_count__gt=1).exists()
    while [name for name in names if claim(name, project) is None]:  # who was passed over asks again
        pass
    assert StudyItem.objects.filter(assigned_count=1).count() == 6


def test_each_of_k_people_rates_once_and_nobody_their_own_text() -> None:
    project = make_answered_project(1)
    study = make_study(project, against=None, judgments_per_item=2)
    rate_next("ann", project)
    assert claim("ann", project) is None
    rate_next("ben", project, BAD)
    item = study.items.get()
    assert (item.assigned_count, item.ratings.count()) == (2, 2)
    make_study(project, against=None)
    Response.objects.filter(prompt__project=project).update(author=person("ann"))
    assert claim("ann", project) is None
    assert claim("ben", project) is not None


def test_a_lease_that_ran_out_goes_to_somebody_else_and_the_late_rating_counts() -> None:
    project = make_answered_project(1)
    study = make_study(project, against=None)
    late = claim("ann", project)
    assert late
    RubricRating.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    rate_next("ben", project)
    stored = services.submit_rating(rating_id=late.public_id, annotator=person("ann"), marks=BAD)
    assert stored.is_late
    assert study.items.get().assigned_count == 1  # of one place; it counts beyond k
    assert RubricRating.objects.filter(status="submitted").count() == 2


def test_a_correction_keeps_what_was_said_before() -> None:
    project = make_answered_project(1)
    study = make_study(project, against=None)
    rating = rate_next("ann", project)
    same = services.submit_rating(rating_id=rating.public_id, annotator=person("ann"), marks=GOOD)
    assert same.pk == rating.pk and RubricRating.objects.count() == 1
    new = services.submit_rating(rating_id=rating.public_id, annotator=person("ann"), marks=BAD)
    assert new.public_id == rating.public_id and new.pk != rating.pk
    live = RubricRating.objects.get(superseded_at=None)
    assert (live.accuracy, live.note) == (False, "Wrong year.")
    assert RubricRating.objects.exclude(superseded_at=None).get().accuracy is True
    assert study.items.get().assigned_count == 1
    kinds = list(Event.objects.filter(data__has_key="rating").order_by("pk").values_list("kind", flat=True))
    assert kinds == [EventKind.VOTE, EventKind.CHANGE]


def test_what_is_given_back_comes_no_more_and_signing_out_frees_what_is_held() -> None:
    project = make_answered_project(1)
    make_study(project, against=None)
    held = claim("ann", project)
    assert held
    services.skip_rating(rating_id=held.public_id, annotator=person("ann"))
    assert claim("ann", project) is None
    with pytest.raises(ConflictError):
        services.submit_rating(rating_id=held.public_id, annotator=person("ann"), marks=GOOD)
    assert claim("ben", project)
    services.give_back(None, User.objects.get(username="ben"))
    assert StudyItem.objects.get().assigned_count == 0


def test_postgres_refuses_half_a_rating_and_a_second_live_one() -> None:
    project = make_answered_project(1)
    make_study(project, against=None, judgments_per_item=3)
    rating = rate_next("ann", project)
    for change in ({"safety": None}, {"submitted_at": None}, {"status": "leased"}, {"status": "unknown"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            RubricRating.objects.filter(pk=rating.pk).update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        RubricRating.objects.create(
            item=rating.item, annotator=rating.annotator, project=project, lease_expires_at=timezone.now()
        )
    with pytest.raises(IntegrityError), transaction.atomic():
        StudyItem.objects.update(assigned_count=4)


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = "/projects/studied/rate/"
MARKS = {"intent": "pass", "accuracy": "fail", "language": "pass", "safety": "pass", "is_satisfied": "fail"}


def sign_in(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def shown(client: Client) -> tuple[UUID, str]:
    text = client.get(PAGE).content.decode()
    found = re.search(r'/rate/([0-9a-f-]{36})/save"', text)
    assert found
    return UUID(found[1]), text


def test_the_page_takes_the_marks_and_goes_on() -> None:
    project = make_answered_project(1)
    make_study(project)
    ann = sign_in("ann")
    home = ann.get("/").content.decode()
    assert f'href="{PAGE}"' in home
    rating, text = shown(ann)
    assert "<strong>answer</strong>" in text or "Old answer" in text
    refused = ann.post(f"{PAGE}{rating}/save", {**MARKS, "safety": "", "note": "Half <b>done"})
    assert refused.status_code == 422
    assert "“Safety” is not answered yet" in refused.content.decode()
    assert "Half &lt;b&gt;done" in refused.content.decode()
    assert ann.post(f"{PAGE}{rating}/save", {**MARKS, "decided_in_ms": "5000"}).status_code == 302
    stored = RubricRating.objects.get(public_id=rating)
    assert (stored.intent, stored.accuracy, stored.is_satisfied, stored.decided_in_ms) == (True, False, False, 5000)
    following, text = shown(ann)
    assert following != rating and f"?item={rating}" in text
    back = ann.get(f"{PAGE}?item={rating}").content.decode()
    assert re.search(r'name="accuracy" value="fail" required checked', back)
    ann.post(f"{PAGE}{following}/save", MARKS)
    assert "Nothing to rate for now" in ann.get(PAGE).content.decode()


def test_a_long_queue_of_responses_is_counted_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_answered_project(2)
    make_study(project)  # four responses
    ann = sign_in("ann")
    monkeypatch.setattr("annotation.own_work.OPEN_COUNTED", 4)
    badge = '<span class="badge">4+</span>'
    assert badge in ann.get("/").content.decode()
    assert badge in ann.get("/projects/studied/compare/").content.decode()
    rating, text = shown(ann)
    assert "3 left" in text, "one of the four is held"
    ann.post(f"{PAGE}{rating}/skip")
    assert '<span class="badge">3</span>' in ann.get("/").content.decode(), "what was given back comes no more"
    monkeypatch.setattr("annotation.own_work.OPEN_COUNTED", 2)
    assert "2 or more left" in shown(ann)[1]


def test_nobody_reaches_the_rating_of_somebody_else() -> None:
    project = make_answered_project(1)
    make_study(project, against=None)
    rating, _text = shown(sign_in("ann"))
    ben = sign_in("ben")
    assert ben.get(f"{PAGE}?item={rating}").status_code == 404
    for action in ("save", "skip"):
        assert ben.post(f"{PAGE}{rating}/{action}", MARKS).status_code == 404
    assert ben.post(f"{PAGE}{rating}/lease").json() == {"seconds": 0}
    assert ben.get(f"{PAGE}?item=x").status_code == 404
    make_user("stranger")
    assert sign_in("stranger").get(PAGE).status_code == 404


def test_no_byte_tells_who_wrote_the_response() -> None:
    project = make_answered_project(2)
    secrets = ["SECRETNEW", "SECRETOLD", "/models/SECRETPATH", "SECRETSTUDY", "SECRETSAMPLING"]
    for pk, name, secret in ((81_000_001, "new-model", "SECRETNEW"), (81_000_002, "old-model", "SECRETOLD")):
        moved = ResponseSource.objects.create(pk=pk, name=secret, kind="model", served_model="/models/SECRETPATH")
        Response.objects.filter(source__name=name).update(source=moved, sampling={"top_p": "SECRETSAMPLING"})
        secrets += [str(pk)]
    sources = ResponseSource.objects.filter(pk__gte=81_000_001).order_by("pk")
    study = make_study(project, name="SECRETSTUDY", source=sources[0], against=sources[1])
    Study.objects.filter(pk=study.pk).update(selection={"why": "SECRETSTUDY"})
    ann = sign_in("ann")
    answers = [ann.get("/"), ann.get("/projects/studied/compare/")]
    for _ in range(4):
        answers.append(ann.get(PAGE))
        rating, _text = shown(ann)
        answers += [
            ann.post(f"{PAGE}{rating}/lease"),
            ann.post(f"{PAGE}{rating}/save", {}),
            ann.post(f"{PAGE}{rating}/save", MARKS),
            ann.get(f"{PAGE}?item={rating}"),
        ]
    said = "\n".join(f"{answer.headers} {answer.cookies} {answer.content.decode()}" for answer in answers)
    assert "Old answer" in said
    assert [secret for secret in secrets if secret in said] == []
