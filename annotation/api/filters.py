"""What an address narrows a list to: read strictly, so that nothing asked for is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from annotation import browse
from annotation.browse import ComparisonFilter, PromptFilter
from annotation.errors import DomainError
from annotation.models import Batch, JudgedState, Project
from annotation.search_terms import Search, compile_search
from annotation.services import refresh_browse_index

LARGEST_ID = 2**63 - 1
INDEX_SECONDS = 2.0
STATES = {state.name.lower(): state for state in JudgedState}
INDEXED_PROMPT_FILTERS = ("query", "tag", "state", "batch", "archived")
INDEXED_COMPARISON_FILTERS = ("state", "batch")
STATE = OpenApiParameter("state", enum=list(STATES), description="How far it has been judged.")
BATCH = OpenApiParameter("batch", description="The name of a batch of comparisons, or its id.")


def read_flag(given: Mapping[str, str], name: str) -> bool | None:
    """True, False, or None where it is not given."""
    value = given.get(name)
    if value is None:
        return None
    if value not in ("true", "1", "false", "0"):
        raise DomainError(f"{name}: {value!r} is neither true nor false.")
    return value in ("true", "1")


def prompt_filter(project: Project, given: Mapping[str, Any]) -> PromptFilter:
    """What the list of prompts is narrowed to, by the names of the page's address."""
    labels: dict[str, Any] = {name: given[name] for name in ("task", "lang", "skill", "topic", "tag") if name in given}
    return PromptFilter(
        **labels,
        **_judged(project, given),
        query=given.get("query", ""),
        archived=bool(read_flag(given, "archived")),
    )


def comparison_filter(project: Project, given: Mapping[str, Any]) -> ComparisonFilter:
    labels: dict[str, Any] = {name: given[name] for name in ("lang", "skill") if name in given}
    return ComparisonFilter(**labels, **_judged(project, given))


def _judged(project: Project, given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if (state := given.get("state")) is not None:
        if state not in STATES:
            raise DomainError(f"state: {state!r} is unknown; choose among {', '.join(STATES)}.")
        found["state"] = STATES[state].value
    if (batch := given.get("batch")) is not None:
        batches = Batch.objects.filter(project=project)
        named = batches.filter(name=batch).first()
        if named is None and batch.isdecimal() and len(batch) < 16:
            named = batches.filter(pk=int(batch)).first()
        if named is None:
            raise DomainError(f"batch: this project has no batch {batch!r}.")
        found["batch"] = named.pk
    return found


def words_of(given: PromptFilter) -> Search | None:
    """The words that are looked for. Raises DomainError where there is none among what is given."""
    if not given.query:
        return None
    search = compile_search(given.query)
    if not search.words:
        raise DomainError(f"query: {given.query!r} has no word that can be looked for, so nothing matches it.")
    return search


def browsed_page(
    request: Request,
    paginator: CursorPagination,
    rows: QuerySet,
    shape: type[serializers.BaseSerializer],
    ids_above: Callable[[int, int], list[int]],
) -> Response:
    """A page of what the browse index finds, in order of id, shaped as the other pages are.

    ids_above: (id, limit) to the ids above it. Every page costs what it shows (annotation.browse).
    """
    is_complete = refresh_browse_index(seconds=INDEX_SECONDS)
    cursor = request.query_params.get("cursor", "0")
    if not cursor.isdecimal() or int(cursor) > LARGEST_ID:
        raise DomainError("cursor: follow the addresses in `next`; this is none of them.")
    size = paginator.get_page_size(request) or paginator.page_size or 100
    ids = ids_above(int(cursor), size + 1)
    shown, has_more = ids[:size], len(ids) > size
    found = rows.in_bulk(shown)
    following = replace_query_param(request.build_absolute_uri(), "cursor", shown[-1]) if has_more else None
    listed = shape([found[pk] for pk in shown if pk in found], many=True).data
    return Response({"next": following, "previous": None, "results": listed, "is_complete": is_complete})


def prompt_ids(project: Project, given: PromptFilter) -> Callable[[int, int], list[int]]:
    search = words_of(given)
    return lambda above, limit: browse.prompt_ids_above(project, given, above, limit, search=search)


def comparison_ids(project: Project, given: ComparisonFilter) -> Callable[[int, int], list[int]]:
    return lambda above, limit: browse.comparison_ids_above(project, given, above, limit)
