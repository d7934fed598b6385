"""What a reward model's job gets of people's absolute scores and of their ties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.export import is_tie
from annotation.models import Comparison, Judgment
from annotation.services import DomainError
from rlhf import preflight
from rlhf.models import DatasetSnapshot
from rlhf.options import SpecError, build_options
from rlhf.preflight.rows import empty_report
from rlhf.score_scales import invert
from rlhf.services import create_snapshot, queue_training_job, register_base_checkpoint
from rlhf.token_lengths import TokenCounter
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_prompt

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def snapshot() -> DatasetSnapshot:
    """Three scored verdicts, one without scores, a tie and a split vote."""
    project = make_project(judgments_per_comparison=2)

    def comparison(name: str) -> Comparison:
        return make_comparison(project, prompt=make_prompt(project, name))

    for number, (a, b) in enumerate([(5, 1), (4, 2), (3, None)]):
        made = make_judgment(comparison(f"scored {number}"), "a", -2)
        Judgment.objects.filter(pk=made.pk).update(ratings={"help": [a, b], "style": [2, 2]})
    make_judgment(comparison("not scored"), "b", 1)
    make_judgment(comparison("tie"), "tie", 0)
    split = comparison("split")
    make_judgment(split, "a", -1)
    make_judgment(split, "b", 1, annotator=make_annotator())
    return create_snapshot(project, "scores", eval_share=0)


def rows_of(snapshot: DatasetSnapshot, base: Path, **options: Any) -> list[dict[str, Any]]:
    built = build_options("reward", options)
    return list(preflight.usable_rows(snapshot, "train", "reward", TokenCounter(base), built))


def test_pairs_carry_scores_as_given_and_normalised_with_the_way_back(
    snapshot: DatasetSnapshot, tiny_model: Path
) -> None:
    measures = snapshot.score_measures
    assert measures["help"] == {"count": 5, "low": 1.0, "high": 5.0, "mean": 3.0, "deviation": pytest.approx(2**0.5)}
    assert (measures["style"]["count"], measures["style"]["deviation"]) == (6, 0.0)
    rows = rows_of(snapshot, tiny_model, score_weight=0.1, score_normalisation="min_max")
    assert [row["chosen_normalised"]["help"] for row in rows] == [1.0, 0.75, 0.5, None]
    assert [row["rejected_normalised"]["help"] for row in rows] == [0.0, 0.25, None, None]
    scales = preflight.score_scales(snapshot, build_options("reward", {"score_weight": 1}))
    for row in rows_of(snapshot, tiny_model, score_weight=1)[:2]:
        assert invert(row["chosen_normalised"]["help"], scales["help"]) == pytest.approx(row["chosen_scores"]["help"])
    assert "chosen_normalised" not in rows_of(snapshot, tiny_model)[0]


def test_ties_are_pairs_without_a_better_side_where_they_are_asked_for(
    snapshot: DatasetSnapshot, tiny_model: Path
) -> None:
    assert [row["p_chosen"] for row in rows_of(snapshot, tiny_model)] == [1.0] * 4
    with_ties = rows_of(snapshot, tiny_model, soft_labels=True, use_ties=True)
    assert [row["p_chosen"] for row in with_ties] == [1.0] * 4 + [0.5, 0.5]
    same = {"text": "Same."}
    assert not is_tie({"a": same, "b": same, "verdict": "tie"})
    report = empty_report(512)
    options = build_options("reward", {"soft_labels": True, "use_ties": True})
    assert (
        len(list(preflight.usable_rows(snapshot, "train", "reward", TokenCounter(tiny_model), options, report))) == 6
    )
    assert (report["used"], report["dropped"]) == (6, {})


def test_a_job_that_wants_scores_where_there_are_none_is_refused(tiny_model: Path) -> None:
    project = make_project()
    make_judgment(make_comparison(project), "a")
    plain = create_snapshot(project, "plain", eval_share=0)
    base = register_base_checkpoint("tiny", tiny_model)
    with pytest.raises(DomainError, match=r"plain holds no absolute scores.*set score_weight to 0"):
        queue_training_job(snapshot=plain, method="reward", base=base, options={"score_weight": "0.1"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"aspect_heads": True}, "aspect_heads learn from absolute scores"),
        ({"use_ties": True}, "use_ties needs soft_labels"),
        ({"soft_labels": True, "margin_per_strength": 0.3}, "margin_per_strength cannot be used with soft_labels"),
        ({"score_weight": -1}, "score_weight: -1.0 is outside"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        build_options("reward", options)
