"""What human evaluations found, worked out by hand."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotation import services
from annotation.models import Comparison, Project, Prompt, RubricRating, Study, StudyKind
from annotation.services import Marks
from annotation.study_figures import (
    coverage_of,
    figures_of,
    gsb_figures,
    labels_of,
    pair_rows,
    rubric_figures,
    study_rows,
)
from tests.factories import make_annotator, make_judgment, make_project, make_prompt, make_response, make_source

pytestmark = pytest.mark.django_db
TAGS: tuple[list[str], ...] = (
    ["difficulty:hard", "scenario:mail"],
    ["difficulty:hard"],
    ["difficulty:easy", "format:few-shot"],
    [],
)


def answered(count: int = 8) -> Project:
    project = make_project("found")
    for number in range(count):
        prompt = make_prompt(project, f"Question {number}?")
        Prompt.objects.filter(pk=prompt.pk).update(tags=TAGS[number % len(TAGS)], task="math" if number < 4 else "")
        make_response(prompt, make_source("new-model"), "n" * (10 + number))
        make_response(prompt, make_source("old-model"), "o" * (20 - number))
    return project


def study_of(project: Project, kind: StudyKind, **more: Any) -> Study:
    return services.create_study(
        project=project,
        name=f"{kind}-{Study.objects.count()}",
        kind=kind,
        source=make_source("new-model"),
        against=make_source("old-model"),
        prompts=project.prompts.order_by("pk"),
        **more,
    )


def vote(comparison: Comparison, verdict: str) -> None:
    """ "good", "same" or "bad", whichever side the new one is on."""
    is_a = comparison.response_a.source.name == "new-model"
    sides = {"good": "a" if is_a else "b", "bad": "b" if is_a else "a", "same": "tie"}
    make_judgment(comparison, sides[verdict])


def test_good_same_bad_is_counted_from_the_new_side_and_by_label() -> None:
    project = answered()
    study = study_of(project, StudyKind.GSB)
    others = make_prompt(project)
    services.create_comparisons(
        project, [(make_response(others, study.source), make_response(others, make_source("old-model")))]
    )
    verdicts = ["good", "good", "bad", "same", "good", "good", "good", "bad"]
    for item, verdict in zip(study.items.order_by("comparison__prompt"), verdicts, strict=True):
        assert item.comparison
        vote(item.comparison, verdict)
    vote(others.comparisons.get(), "bad")  # the same two, but not of the study
    assert coverage_of(study).judged == 8
    found = figures_of(study)
    assert (found["good"], found["same"], found["bad"], found["net"]) == (5, 1, 2, pytest.approx(3 / 8))
    assert found["win_rate"]["value"] == pytest.approx(5.5 / 8)
    assert "No difference can be told with these 8 votes" in found["sentence"]
    counts = {(part["axis"], part["label"]): (part["good"], part["same"], part["bad"]) for part in found["slices"]}
    assert counts == {
        ("capability", "math"): (2, 1, 1), ("capability", None): (3, 0, 1),
        ("scenario", "mail"): (2, 0, 0), ("scenario", None): (3, 1, 2),
        ("difficulty", "hard"): (4, 0, 0), ("difficulty", "easy"): (1, 0, 1), ("difficulty", None): (0, 1, 1),
        ("format", "few-shot"): (1, 0, 1), ("format", None): (4, 1, 1),
        ("language", "en"): (5, 1, 2),
    }  # fmt: skip
    assert found["agreement"] is None  # nobody judged what another did
    rows = list(study_rows(study))
    assert [row["verdict"] for row in rows] == verdicts
    assert (rows[0]["new_characters"], rows[0]["old_characters"], rows[0]["scenario"]) == (10, 20, "mail")
    assert list(study_rows(study, 2)) == rows[-2:]
    assert len(list(pair_rows([project], make_source("new-model"), make_source("old-model")))) == 9


def test_a_study_without_votes_says_so() -> None:
    study = study_of(answered(2), StudyKind.GSB)
    found = figures_of(study)
    assert (found["win_rate"], found["judgments"], found["slices"]) == (None, 0, [])
    assert found["sentence"] == "Nobody has judged any of it yet."
    marked = figures_of(study_of(study.project, StudyKind.RUBRIC))
    assert [model["pass_rate"] for model in marked["models"]] == [None, None]
    assert marked["difference"] is None


def rate_all(study: Study, project: Project, people: int, passes: dict[str, list[bool]]) -> None:
    for annotator in (make_annotator(project=project) for _ in range(people)):
        while rating := services.claim_rating(annotator=annotator, project=project):
            response = rating.item.response
            assert response is not None
            number = int(response.prompt.messages[0]["content"].split()[1].strip("?"))
            met = passes[response.source.name][number]
            services.submit_rating(
                rating_id=rating.public_id,
                annotator=annotator,
                marks=Marks(intent=True, accuracy=met, language=True, safety=True, is_satisfied=met or number == 0),
            )


def test_pass_rates_and_their_difference() -> None:
    project = answered(4)
    study = study_of(project, StudyKind.RUBRIC, judgments_per_item=2)
    passes = {"new-model": [False, True, True, True], "old-model": [False, True, False, False]}
    rate_all(study, project, 2, passes)
    coverage = coverage_of(study)
    assert (coverage.items, coverage.judged, coverage.given, coverage.wanted) == (8, 8, 16, 16)
    found = rubric_figures(study)
    new, old = found.whole
    assert (new.ratings, new.samples, new.people) == (8, 4, 2)
    assert new.shares["passed"].value == new.shares["accuracy"].value == 0.75
    assert new.shares["intent"].value == 1 and new.shares["intent"].lower < 1
    assert new.shares["is_satisfied"].value == 1
    assert old.shares["passed"].value == 0.25
    # Differences by prompt 0, 0, 1, 1: mean ½, standard error 0.2887, t(3) = 3.182.
    assert found.difference is not None
    assert found.difference.value == 0.5
    assert found.difference.upper == pytest.approx(0.5 + 3.18245 * 0.288675, abs=1e-4)
    assert found.agreement["passed"].value == 1  # both people said the same of each
    hard = next(part for part in found.slices if (part.axis, part.label) == ("difficulty", "hard"))
    assert [one.shares["passed"].value for one in hard.found] == [0.5, 0.5]
    # A correction replaces; it does not add.
    rating = RubricRating.objects.filter(item__response__source__name="new-model", accuracy=False)[0]
    marks = Marks(True, True, True, True, True)
    services.submit_rating(rating_id=rating.public_id, annotator=rating.annotator, marks=marks)
    found = rubric_figures(study)
    assert found.whole[0].shares["passed"].value == pytest.approx(7 / 8)
    assert (found.agreement["passed"].value, found.agreement["passed"].count) == (7 / 8, 8)
    rows = list(study_rows(study))
    assert len(rows) == 16 and list(study_rows(study, 3)) == rows[-3:]


def test_labels_out_of_tags() -> None:
    labels = labels_of("code", "", ["difficulty: hard", "format:zero-shot", "format:complex", "other", "scenario:"])
    assert labels == {
        "capability": ["code"], "language": [""], "scenario": [""],
        "difficulty": ["hard"], "format": ["complex", "zero-shot"],
    }  # fmt: skip


def test_the_command_prints_the_figures() -> None:
    study = study_of(answered(2), StudyKind.GSB)
    for item in study.items.all():
        assert item.comparison
        vote(item.comparison, "good")
    out = StringIO()
    call_command("human_eval", study.name, json=True, stdout=out)
    assert json.loads(out.getvalue())["good"] == 2
    out = StringIO()
    call_command("human_eval", study.name, stdout=out)
    assert "capability math" in out.getvalue()
    assert gsb_figures(study).whole.wins == 2
    with pytest.raises(CommandError, match="known: gsb-0"):
        call_command("human_eval", "winter")
