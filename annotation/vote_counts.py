"""Counts over the live votes of people: do sides or lengths sway them, and who was judged against whom."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Case, Count, F, Func, IntegerField, Q, QuerySet, When

from annotation.models import Judgment, Preference, Project, ResponseSource


class _Bytes(Func):
    """A text's length in bytes: unlike its characters, Postgres knows them without reading the text."""

    function = "octet_length"
    output_field = IntegerField()


@dataclass(frozen=True)
class Sway:
    """Of the votes for a side: how many went to the left one, and to the longer one."""

    left_chosen: int
    shown: int
    """Votes for a side whose sides on the screen are known (imported ones have none)."""
    longer_chosen: int
    unequal: int
    """Votes for a side between texts of different lengths."""


def _live_human_votes() -> QuerySet[Judgment]:
    return Judgment.objects.filter(superseded_at=None, annotator__is_human=True)


def count_sway(project: Project) -> Sway:
    """How often people chose the left and the longer response of a project's comparisons."""
    sided = Q(assignment__isnull=False)
    left = Q(preference=Preference.A, assignment__a_shown_on_left=True) | Q(
        preference=Preference.B, assignment__a_shown_on_left=False
    )
    longer = Q(preference=Preference.A, a_length__gt=F("b_length")) | Q(
        preference=Preference.B, b_length__gt=F("a_length")
    )
    counts = (
        _live_human_votes()
        .filter(comparison__project=project, preference__in=[Preference.A, Preference.B])
        .annotate(a_length=_Bytes("comparison__response_a__text"), b_length=_Bytes("comparison__response_b__text"))
        .aggregate(
            left_chosen=Count("pk", filter=left),
            shown=Count("pk", filter=sided),
            longer_chosen=Count("pk", filter=longer),
            unequal=Count("pk", filter=~Q(a_length=F("b_length"))),
        )
    )
    return Sway(**counts)


def opponents_of(source: ResponseSource) -> list[tuple[Project, ResponseSource]]:
    """Against whom people judged the source, and in which project, most votes first."""
    is_a, is_b = Q(comparison__response_a__source=source), Q(comparison__response_b__source=source)
    rows = (
        _live_human_votes()
        .filter(is_a ^ is_b)
        .values_list(
            "comparison__project",
            Case(When(is_a, then=F("comparison__response_b__source")), default=F("comparison__response_a__source")),
        )
        .annotate(votes=Count("pk"))
        .order_by("-votes")
    )
    pairs = [(project, opponent) for project, opponent, _ in rows]
    projects = Project.objects.in_bulk({project for project, _ in pairs})
    sources = ResponseSource.objects.in_bulk({opponent for _, opponent in pairs})
    return [(projects[project], sources[opponent]) for project, opponent in pairs]
