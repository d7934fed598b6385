"""What the browse pages read follows the tables: entries, tallies and words."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from annotation.models import (
    BrowseChange,
    Comparison,
    ComparisonEntry,
    JudgedState,
    Judgment,
    Project,
    Prompt,
    PromptEntry,
    PromptWords,
    Response,
    StaleWords,
    Tally,
)
from annotation.services import refresh_browse_index
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_response

pytestmark = pytest.mark.django_db


def tallies(project: Project, scope: str = Tally.Scope.PROMPT) -> dict[str, int]:
    rows = Tally.objects.filter(project=project, scope=scope, count__gt=0)
    return {f"{row.dimension}={row.value}" if row.value else row.dimension: row.count for row in rows}


def recount(project: Project, model: type[PromptEntry] | type[ComparisonEntry]) -> dict[str, int]:
    """The tallies as they follow from the entries, one by one."""
    counts: dict[str, int] = {}
    for marks in model.objects.filter(project=project).values_list("marks", flat=True):
        for mark in marks:
            if not mark.startswith("@") and ("archived" not in marks or mark == "archived"):
                mark = mark if mark.partition("=")[2] else mark.partition("=")[0]
                counts[mark] = counts.get(mark, 0) + 1
    return counts


def finds(prompt: Prompt, term: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT vector @@ annotation_search_term(%s) FROM annotation_promptwords WHERE prompt_id = %s",
            [term, prompt.pk],
        )
        return bool(cursor.fetchone()[0])


def test_tallies_follow_every_change_and_equal_a_recount() -> None:
    project = make_project(judgments_per_comparison=2)
    first, second = make_prompt(project), make_prompt(project)
    pairs = [make_comparison(project, prompt=prompt) for prompt in (first, first, second)]
    assert refresh_browse_index()
    assert tallies(project)["live"] == 2
    assert tallies(project)["state=1"] == 2
    assert tallies(project, "c")["state=1"] == 3

    make_judgment(pairs[0])
    vote = make_judgment(pairs[2])
    make_judgment(pairs[2])
    Prompt.objects.filter(pk=first.pk).update(task="code", tags=["hard", "odd"], archived_at=timezone.now())
    Comparison.objects.filter(pk=pairs[1].pk).update(is_withdrawn=True)
    assert refresh_browse_index()
    of_comparisons = tallies(project, "c")
    assert {mark: of_comparisons[mark] for mark in ("all", "state=2", "state=3", "state=4")} == {
        "all": 3,
        "state=2": 1,
        "state=3": 1,
        "state=4": 1,
    }
    assert tallies(project)["archived"] == 1
    assert tallies(project)["state=3"] == 1
    assert "tag=hard" not in tallies(project), "what is archived counts only as archived"

    Prompt.objects.filter(pk=first.pk).update(archived_at=None)
    Judgment.objects.filter(pk=vote.pk).update(superseded_at=timezone.now())
    assert refresh_browse_index()
    assert tallies(project)["tag=hard"] == 1
    assert tallies(project)["state=2"] == 2
    for scope, model in ((Tally.Scope.PROMPT, PromptEntry), (Tally.Scope.COMPARISON, ComparisonEntry)):
        assert tallies(project, scope) == recount(project, model)
    assert not BrowseChange.objects.exists()
    assert not StaleWords.objects.exists()


def test_a_claim_notes_no_change() -> None:
    comparison = make_comparison()
    refresh_browse_index()
    Comparison.objects.filter(pk=comparison.pk).update(assigned_count=F("assigned_count") + 1)
    assert not BrowseChange.objects.exists()


def test_equal_texts_and_judged_imports_have_their_state() -> None:
    comparison = make_comparison()
    Comparison.objects.filter(pk=comparison.pk).update(required_count=0)
    refresh_browse_index()
    assert ComparisonEntry.objects.get(pk=comparison.pk).state == JudgedState.NOTHING
    make_judgment(comparison)
    refresh_browse_index()
    assert ComparisonEntry.objects.get(pk=comparison.pk).state == JudgedState.JUDGED


def test_words_of_prompts_and_responses_are_found_as_they_change() -> None:
    project = make_project()
    prompt = make_prompt(project, "Why do cats keep running at night?")
    response = make_response(prompt, text="Felines are crepuscular.")
    refresh_browse_index()
    assert finds(prompt, "run")
    assert finds(prompt, "cat")
    assert finds(prompt, "crepuscular")
    assert finds(prompt, "keep running")
    assert not finds(prompt, "running keep")
    Response.objects.filter(pk=response.pk).update(text="They hunt.")
    refresh_browse_index()
    assert finds(prompt, "hunting")
    assert not finds(prompt, "crepuscular")


@pytest.mark.parametrize(
    ("text", "term", "is_found"),
    [
        ("学习机器学习模型", "机器学习", True),
        ("学习机器学习模型", "机器", True),
        ("学习机器学习模型", "型", True),
        ("学习机器学习模型", "学", True),
        ("机器和学习", "机器学习", False),
        ("请解释GPT4模型的原理", "GPT4", True),
        ("请解释GPT4模型的原理", "gpt4模型", True),
        ("カタカナを書く", "カナ", True),
        ("이것은 한국어입니다", "한국어", True),
        ("Die Katzen laufen", "katzen", True),
        ("naïve café", "café", True),
        ("it is what it is", "the", False),
    ],
)
def test_what_is_found_in_which_script(text: str, term: str, is_found: bool) -> None:
    prompt = make_prompt(make_project(), text)
    refresh_browse_index()
    assert finds(prompt, term) is is_found


def test_a_text_too_long_for_one_vector_is_read_as_far_as_it_goes() -> None:
    letters = [chr(0x4E00 + number * 7919 % 20_000) for number in range(120_000)]
    prompt = make_prompt(make_project(), "".join(letters))
    assert refresh_browse_index()
    assert finds(prompt, "".join(letters[:6]))


def test_nothing_is_taken_in_twice_by_two_processes() -> None:
    """A second refresh meets the lock of the first, which this test's own transaction holds, and leaves at once."""
    make_prompt(make_project())
    settings = connection.settings_dict
    with psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"] or None,
        user=settings["USER"],
        password=settings["PASSWORD"] or None,
        dbname=settings["NAME"],
    ) as other:
        other.execute("SELECT pg_advisory_xact_lock(7310002)")
        assert not refresh_browse_index()
        assert not PromptEntry.objects.exists()
        assert BrowseChange.objects.exists()
    assert refresh_browse_index()
    assert PromptWords.objects.count() == 1
