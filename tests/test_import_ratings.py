"""Scores of single responses: touchstone rows with one response, helpsteer2, ultrafeedback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.importers import helpsteer2, ultrafeedback
from annotation.importers.rows import UnusableRowError
from annotation.models import Comparison, Judgment, Rating, Response
from tests.importing import annotation, import_lines, reasons, touchstone_row


def rated_row(*annotations: Any, **changes: Any) -> dict[str, Any]:
    return touchstone_row(responses=[{"model": "x", "text": "alone"}], annotations=list(annotations), **changes)


def ratings() -> set[tuple[str, str, float | None, str]]:
    return set(Rating.objects.values_list("annotator__name", "aspect", "value", "label"))


@pytest.mark.django_db
def test_one_response_is_rated_and_not_compared(tmp_path: Path) -> None:
    row = rated_row(
        annotation(annotator="r1", label="Unsure", rationale="hm"),
        annotation(annotator="r2", label=4),
        annotation(annotator="r2", label=2.5, aspect="fluency"),
        annotation(annotator="r3", label=True),
        annotation(annotator="r2", label=5),
        annotation(annotator="r4", label=None),
        annotation(annotator="r5", label=1, aspect=""),
    )
    done = import_lines(tmp_path, [row])
    assert (done["rows"], done["single_responses"], done["ratings"], done["comparisons"]) == (1, 1, 4, 0)
    assert ratings() == {
        ("r1", "overall", None, "Unsure"),
        ("r2", "overall", 4.0, ""),
        ("r2", "fluency", 2.5, ""),
        ("r3", "overall", None, "true"),
    }
    assert Rating.objects.get(label="Unsure").note == "hm"
    assert [(entry["annotator"], entry["reason"][:30]) for entry in done["skipped"]] == [
        ("r2", "rated this response twice; the"),
        ("r4", '"label" is not a number, nor t'),
        ("r5", '"aspect" is not a name of 1 to'),
    ]
    assert not Comparison.objects.exists()


@pytest.mark.django_db
def test_later_ratings_are_added_and_earlier_ones_stand(tmp_path: Path) -> None:
    import_lines(tmp_path, [touchstone_row(), rated_row(annotation(label="Yes"), prompt="Alone?")])
    again = [
        rated_row(annotation(label="No"), annotation(annotator="b", label="No"), prompt="Alone?"),
        # One response of the pair, scored on its own: the same response, by the same source, to the same prompt.
        touchstone_row(responses=[{"model": "model-x", "text": "X1"}], annotations=[annotation(label=3)]),
    ]
    done = import_lines(tmp_path, again)
    assert (done["responses"], done["already_there"], done["single_responses"], done["ratings"]) == (0, 2, 0, 2)
    assert reasons(done) == [(1, "rated it otherwise before; that stands")]
    assert Response.objects.get(text="X1").ratings.get().value == 3


# ── helpsteer2 ───────────────────────────────────────────────────────────────────────────────────────────────────


def scored_row(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": "c#",
        "response": "C# is a language.",
        "helpfulness": 3,
        "correctness": 4,
        "coherence": 4,
        "complexity": 2,
        "verbosity": 1,
        **changes,
    }


def preference_row(**changes: Any) -> dict[str, Any]:
    return {
        "split": "train",
        "prompt": "c#",
        "response_1": "C# is a language.",
        "response_2": "A note.",
        "preference_strength": -2,
        "preference_statement": "@Response 1 is better",
        **changes,
    }


@pytest.mark.django_db
def test_helpsteer2_scores_and_preferences_meet_at_the_response(tmp_path: Path) -> None:
    done = import_lines(tmp_path, [scored_row(), preference_row(), scored_row(response="A note.", helpfulness=0)])
    assert (done["format"], done["prompts"], done["responses"], done["comparisons"]) == ("helpsteer2", 1, 2, 1)
    assert (done["ratings"], done["judgments"], done["single_responses"], done["already_there"]) == (10, 1, 2, 0)
    best = Response.objects.get(text="C# is a language.")
    assert set(best.ratings.values_list("aspect", "value", "low", "high")) == {
        ("helpfulness", 3, 0, 4),
        ("correctness", 4, 0, 4),
        ("coherence", 4, 0, 4),
        ("complexity", 2, 0, 4),
        ("verbosity", 1, 0, 4),
    }
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength) == ("a", -2)


def test_helpsteer2_keeps_every_single_vote_and_splits_turns() -> None:
    votes = [
        {"strength": 1, "statement": "2 is shorter", "elaboration": "by far"},
        {"strength": -100, "statement": "both wrong"},
        {"strength": 0},
        {"strength": 7},
    ]
    prompt = "One?\n<extra_id_1>Assistant\n1\n<extra_id_1>User\nTwo?"
    row = helpsteer2.parse(preference_row(prompt=prompt, all_preferences_unprocessed=votes))
    assert [message["content"] for message in row.messages] == ["One?", "1", "Two?"]
    assert [(vote.preference, vote.strength, vote.note) for vote in row.verdicts] == [
        ("b", 1, "2 is shorter\n\nby far"),
        ("neither", None, "both wrong"),
        ("tie", 0, ""),
    ]
    assert [name for name, _ in row.skipped] == ["annotator 4 (helpsteer2)"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (scored_row(helpfulness="3"), '"helpfulness" is "3", not a number'),
        (scored_row(response=None), '"response" is null, not text'),
        ({"prompt": "p", "response": "r", "helpfulness": None}, "it holds none of the scores"),
        (preference_row(preference_strength=4), '"preference_strength" is not a whole number from -3 to 3'),
        (preference_row(response_2="C# is a language."), "nothing to compare"),
        (preference_row(prompt="One?\n<extra_id_1>Assistant\n1"), "does not end with a turn of the user"),
    ],
)
def test_unusable_helpsteer2_rows(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        helpsteer2.parse(record)


# ── ultrafeedback ────────────────────────────────────────────────────────────────────────────────────────────────


def completion(model: str, *points: Any) -> dict[str, Any]:
    aspects = {
        aspect: {"Rating": point, "Rationale": f"{aspect} of {model}"}
        for aspect, point in zip(ultrafeedback.ASPECTS, points, strict=True)
    }
    return {"model": model, "response": f"{model} says", "annotations": aspects, "overall_score": 10.0}


def ultrafeedback_row(**changes: Any) -> dict[str, Any]:
    completions = [
        completion("llama", "5", "4", "5", "4"),
        completion("falcon", "1", "2", "N/A", "1"),
        completion("gpt", "5", "5", "4", "4"),
        completion("bard", "2", "2", "2", "2"),
    ]
    return {"source": "evol_instruct", "instruction": "Do it.", "models": [], "completions": completions, **changes}


@pytest.mark.django_db
def test_ultrafeedback_is_a_ranking_with_scores(tmp_path: Path) -> None:
    done = import_lines(tmp_path, [ultrafeedback_row()])
    assert (done["format"], done["comparisons"], done["responses"], done["ratings"]) == ("ultrafeedback", 1, 4, 15)
    comparison = Comparison.objects.get()
    assert (comparison.response_count, comparison.required_count) == (4, 0)
    texts = [comparison.response_a.text, comparison.response_b.text]
    texts += [further.response.text for further in comparison.further_responses.all()]
    assert texts == ["llama says", "falcon says", "gpt says", "bard says"]
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.ranking, judgment.annotator.is_human) == ("ranked", [1, 3, 1, 2], False)
    rating = Rating.objects.get(response__text="bard says", aspect="honesty")
    assert (rating.value, rating.low, rating.high, rating.note) == (2, 1, 5, "honesty of bard")


def test_ultrafeedback_without_scores_ranks_nothing() -> None:
    row = ultrafeedback.parse(ultrafeedback_row(completions=[completion("a", *["N/A"] * 4), completion("b", *"1111")]))
    assert (row.verdicts, len(row.scores)) == ([], 4)
    with pytest.raises(UnusableRowError, match=r'"completions\[0\].response" is null, not text'):
        ultrafeedback.parse(ultrafeedback_row(completions=[{"response": None}]))
    with pytest.raises(UnusableRowError, match="not a list of 1 to 9"):
        ultrafeedback.parse(ultrafeedback_row(completions=[]))
