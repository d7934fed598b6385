"""Lists of prompts and comparisons: what is on which page, found by which words, counted how."""

from __future__ import annotations

import itertools
import random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from annotation import browse
from annotation.browse import ComparisonFilter, Cursor, PromptFilter, blocks_down, blocks_up
from annotation.models import Batch, Comparison, JudgedState, Project, Prompt, Tally
from annotation.search_terms import Term, compile_search, excerpt, parse_terms
from annotation.services import refresh_browse_index
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_response

database = pytest.mark.django_db


@given(st.integers(0, 2**24))
def test_blocks_cover_every_id_once_in_order(edge: int) -> None:
    def span(block: tuple[int, int]) -> tuple[int, int]:
        shift = browse.BLOCK_SHIFTS[block[0]]
        return block[1] << shift, (block[1] + 1 << shift) - 1

    down = [span(block) for block in blocks_down(edge)]
    assert down[0][0] <= edge <= down[0][1]
    assert down[-1][0] == 0
    assert all(later[1] + 1 == earlier[0] for earlier, later in itertools.pairwise(down))
    up = [span(block) for block in blocks_up(edge, edge + 2**20)]
    assert up[0][0] <= edge <= up[0][1]
    assert up[-1][1] >= edge + 2**20
    assert all(earlier[1] + 1 == later[0] for earlier, later in itertools.pairwise(up))
    assert len(down) <= 150


@pytest.mark.parametrize(
    ("typed", "terms"),
    [
        ("red car", [[Term("red"), Term("car")]]),
        ('"old car" -rusty', [[Term("old car"), Term("rusty", True)]]),
        ('-"flat tyre"', [[Term("flat tyre", True)]]),
        ("a OR b c", [[Term("a")], [Term("b"), Term("c")]]),
        ('OR - "" "open', [[Term("open")]]),
        ("", []),
    ],
)
def test_what_is_typed_is_read_as_search_engines_read_it(typed: str, terms: list[list[Term]]) -> None:
    assert parse_terms(typed) == terms


def found(project: Project, typed: str, **more: object) -> list[str]:
    """The texts on the first page of a search."""
    refresh_browse_index()
    search = compile_search(typed)
    page = browse.prompt_page(
        project,
        PromptFilter(query=typed, **more),  # type: ignore[arg-type]
        Cursor(),
        search=search,
    )
    return ["".join(part for part, _ in row.parts) for row in page.rows]


@database
def test_words_phrases_exclusions_and_alternatives() -> None:
    project, other = make_project(), make_project()
    for text in ("Old cars rust.", "A car, old as time.", "Bicycles do not rust.", "二手车怎么样"):
        make_prompt(project, text)
    make_prompt(other, "Old cars of somebody else.")
    assert found(project, "cars") == ["A car, old as time.", "Old cars rust."]
    assert found(project, '"old cars"') == ["Old cars rust."]
    assert found(project, "rust -bicycle") == ["Old cars rust."]
    assert found(project, "-rust -car") == ["二手车怎么样"]
    assert found(project, "bicycle OR 二手") == ["二手车怎么样", "Bicycles do not rust."]
    assert found(project, "the old") == ["A car, old as time.", "Old cars rust."]
    assert found(project, "car xylophone") == []
    assert compile_search("the of").words == ""


@database
def test_hits_are_marked_in_a_passage_of_the_text_that_has_them() -> None:
    project = make_project()
    prompt = make_prompt(project, "Tell me of animals.")
    make_response(prompt, text="Word. " * 200 + "Happiness is a running cat. " + "More. " * 200)
    refresh_browse_index()
    search = compile_search("happy runs")
    page = browse.prompt_page(project, PromptFilter(), Cursor(), search=search)
    parts = page.rows[0].parts
    assert [part for part, is_hit in parts if is_hit] == ["Happiness", "running"]
    assert len("".join(part for part, _ in parts)) < 300
    assert excerpt(["<b>机器学习</b>"], compile_search("机器").patterns) == [
        ("<b>", False),
        ("机器", True),
        ("学习</b>", False),
    ]


@database
def test_pages_go_there_and_back_without_gap_or_repeat() -> None:
    project = make_project()
    ids = [make_prompt(project).pk for _ in range(2 * browse.PAGE_ROWS + 7)]
    refresh_browse_index()
    cursor, seen = Cursor(), []
    while True:
        page = browse.prompt_page(project, PromptFilter(), cursor, search=None)
        seen += [row.id for row in page.rows]
        if page.older is None:
            break
        cursor = Cursor(after=page.older)
    assert seen == ids[::-1]
    back = browse.prompt_page(project, PromptFilter(), Cursor(before=page.newer), search=None)
    assert [row.id for row in back.rows] == seen[browse.PAGE_ROWS : 2 * browse.PAGE_ROWS]
    first = browse.prompt_page(project, PromptFilter(), Cursor(before=back.newer), search=None)
    assert [row.id for row in first.rows] == seen[: browse.PAGE_ROWS]
    assert first.newer is None


@database
def test_filters_and_counts_equal_a_plain_query() -> None:
    project = make_project()
    random.seed(3)
    batch = Batch.objects.create(project=project, name="week 1")
    for number in range(60):
        comparison = make_comparison(project)
        Comparison.objects.filter(pk=comparison.pk, id__gt=0).update(batch=batch if number % 3 else None)
        Prompt.objects.filter(pk=comparison.prompt_id).update(
            task=random.choice(["code", "chat", ""]), topic=random.choice(["a", "b"]), tags=["hard"][: number % 2]
        )
        if number % 4 == 0:
            make_judgment(comparison)
    refresh_browse_index()
    for given_ in (
        {"task": "code"},
        {"task": ""},
        {"task": "chat", "topic": "a", "tag": "hard"},
        {"state": JudgedState.JUDGED, "task": "code"},
        {"batch": batch.pk},
    ):
        narrowed = PromptFilter(**given_)  # type: ignore[arg-type]
        wanted = Prompt.objects.filter(project=project)
        for name, value in given_.items():
            if name == "tag":
                wanted = wanted.filter(tags__contains=[value])
            elif name == "batch":
                wanted = wanted.filter(comparisons__batch=value)
            elif name == "state":
                wanted = wanted.filter(comparisons__judgments__isnull=False)
            else:
                wanted = wanted.filter(**{name: value})
        page = browse.prompt_page(project, narrowed, Cursor(), search=None)
        assert [row.id for row in page.rows] == list(wanted.order_by("-pk").values_list("pk", flat=True)), given_
        count = browse.prompt_count(project, narrowed, search=None)
        assert (count.value, count.is_at_least) == (wanted.count(), False)
    page_of_judged = browse.comparison_page(project, ComparisonFilter(state=3), Cursor())
    assert len(page_of_judged.rows) == 15
    assert page_of_judged.rows[0].votes == [("a", 1)]
    assert browse.comparison_count(project, ComparisonFilter(state=3)).value == 15
    values = browse.tallied_values(project, Tally.Scope.PROMPT)
    assert sum(count for _, count in values["task"]) == 60
    assert values["tag"] == [("hard", 30)]


@database
def test_counting_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "COUNTED_UP_TO", 3)
    project = make_project()
    for number in range(5):
        make_prompt(project, f"Same word {number}.")
    refresh_browse_index()
    search = compile_search("word")
    count = browse.prompt_count(project, PromptFilter(), search=search)
    assert (count.value, count.is_at_least) == (3, True)


@database
def test_an_address_says_what_a_filter_says() -> None:
    narrowed = PromptFilter.of({"task": "-", "state": "2", "batch": "x", "archived": "1", "query": " a b ", "z": "1"})
    assert narrowed == PromptFilter(task="", state=2, archived=True, query="a b")
    assert PromptFilter.of(narrowed.params()) == narrowed
    assert Cursor.of({"after": "12", "before": "3"}) == Cursor(after=12)
    assert Cursor.of({"after": "-1", "before": "²"}) == Cursor()


@database
def test_a_page_costs_the_same_queries_however_much_is_on_it() -> None:
    counts = []
    for size in (1, 30):
        project = make_project()
        for _ in range(size):
            make_comparison(project)
        refresh_browse_index()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            browse.index_state()
            browse.prompt_page(project, PromptFilter(), Cursor(), search=compile_search("question"))
            browse.comparison_page(project, ComparisonFilter(), Cursor())
            browse.prompt_count(project, PromptFilter(), search=None)
            browse.tallied_values(project, Tally.Scope.PROMPT)
        counts.append(len(queries))
    assert counts[0] == counts[1]
