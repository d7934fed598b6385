"""Texts that read alike are found, others are not, and one of each group is kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.browse import ComparisonFilter, Cursor, comparison_page
from annotation.duplicates import find_alike, passages, similarity
from annotation.models import DataJobStatus, Duplicate, Prompt, SimilarResponses
from annotation.services import DomainError, duplicates
from annotation.services.prompts import start_undo
from tests.factories import make_comparison, make_project, make_prompt, make_user

WORDS = [f"word{number}x{number * 7919 % 1000}" for number in range(2000)]


def set_similarity(a: str, b: str) -> float:
    """Jaccard similarity by plain sets."""
    a, b = (" ".join(text.casefold().split()) for text in (a, b))
    sets = [{text[start : start + 5] for start in range(max(1, len(text) - 4))} for text in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@given(st.text(min_size=5, max_size=60), st.text(min_size=5, max_size=60))
def test_similarity_is_that_of_the_sets_of_passages(a: str, b: str) -> None:
    if min(len(" ".join(text.casefold().split())) for text in (a, b)) >= 5:
        assert similarity(passages(a), passages(b)) == pytest.approx(set_similarity(a, b))


def test_case_and_spacing_do_not_count_and_short_texts_compare() -> None:
    assert similarity(passages("Hello  World, again"), passages("hello world,\nAGAIN")) == 1
    assert similarity(passages("hi"), passages("Hi ")) == 1
    assert similarity(passages("hi"), passages("ho")) == 0
    assert len(passages("")) == 1


def test_what_is_alike_is_found_and_what_is_not_is_not() -> None:
    draw = random.Random(5)
    texts = {number: " ".join(draw.choices(WORDS, k=80)) for number in range(600)}
    pairs = {}
    for number in range(200):
        words = texts[number].split()
        for _ in range(draw.randrange(6)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        pairs[1000 + number] = number
        texts[1000 + number] = " ".join(words)
    found = {
        pk: (like, share) for pk, like, share in find_alike(texts.items(), lambda ids: {pk: texts[pk] for pk in ids})
    }
    alike = {pk: like for pk, like in pairs.items() if set_similarity(texts[pk], texts[like]) >= 0.8}
    assert len(alike) > 150
    assert set(found) <= set(alike), "nothing else is alike"
    missed = set(alike) - set(found)
    assert len(missed) <= 1, "one in several hundred may be missed"
    for pk, (like, share) in found.items():
        assert like == pairs[pk]
        assert share == pytest.approx(set_similarity(texts[pk], texts[like]))


def test_thousands_of_the_same_text_are_one_group() -> None:
    texts = dict.fromkeys(range(3000), "The same question, again and again?")
    found = list(find_alike(texts.items(), lambda ids: {pk: texts[pk] for pk in ids}))
    assert found == [(number, 0, 1.0) for number in range(1, 3000)]


@pytest.mark.django_db
def test_groups_are_kept_for_the_page_and_one_of_each_stays() -> None:
    project, user = make_project(), make_user()
    long = "Explain in simple words why the sky is blue during the day and red in the evening"
    first = make_prompt(project, f"{long}.")
    near = make_prompt(project, f"{long}!")
    same = make_prompt(project, f"{long.upper()}.")
    make_prompt(project, "Something else entirely, about cooking rice.")
    make_prompt(make_project(), f"{long}.")
    job = duplicates.start_search(project, user=user)
    assert job.status == DataJobStatus.DONE, job.error
    rows = {row.prompt_id: (row.like_id, row.similarity) for row in Duplicate.objects.all()}
    assert set(rows) == {near.pk, same.pk}
    assert rows[same.pk] == (first.pk, 100)
    assert rows[near.pk][0] == first.pk and 90 < rows[near.pk][1] < 100

    with pytest.raises(DomainError):
        duplicates.keep_one(project, first.pk, 0, user=user)
    duplicates.keep_one(project, first.pk, near.pk, user=user)
    live = set(Prompt.objects.filter(project=project, archived_at=None).values_list("pk", flat=True))
    assert near.pk in live and not live & {first.pk, same.pk}
    assert not Duplicate.objects.exists()

    start_undo(project, user=user)
    duplicates.start_search(project, user=user)
    duplicates.keep_oldest(project, at_least=100, user=user)
    live = set(Prompt.objects.filter(project=project, archived_at=None).values_list("pk", flat=True))
    assert {first.pk, near.pk} <= live and same.pk not in live


@pytest.mark.django_db
def test_responses_that_read_nearly_the_same_are_marked() -> None:
    project, user = make_project(), make_user()
    text = "Water evaporates, rises, cools and falls down again as rain over land and sea"
    alike = make_comparison(project, a_text=text + ".", b_text=text + "!")
    make_comparison(project, a_text=text, b_text="No idea, ask somebody else about all of this; I was never any good.")
    duplicates.start_search(project, user=user)
    assert [row.pk for row in SimilarResponses.objects.all()] == [alike.pk]
    page = comparison_page(project, ComparisonFilter(similar="yes"), Cursor())
    assert [row.id for row in page.rows] == [alike.pk]
