"""How often a published checkpoint is preferred to another, over all projects in which both were judged."""

from __future__ import annotations

from collections.abc import Collection

from annotation.models import Project, ProjectSource
from annotation.win_rates import WinRate, measure_win_rate
from rlhf.models import AliasMove, Checkpoint

CHAMPION = "champion"


def checkpoint_win_rate(
    new: Checkpoint,
    old: Checkpoint,
    *,
    project: Project | None = None,
    voters: str = "people",
    groups: Collection[str] | None = None,
) -> WinRate | None:
    """By the live votes between the two, in one project or in all; None where either was never published.

    voters: "people", "judges" (models) or "all". groups keeps to the prompts of those groups.
    """
    if new.source is None or old.source is None or new.source_id == old.source_id:
        return None
    projects = [project] if project else meeting_places(new, old)
    return measure_win_rate(projects, new.source, old.source, voters=voters, groups=groups)


def meeting_places(new: Checkpoint, old: Checkpoint) -> list[Project]:
    """The projects that hold responses of both."""
    held = ProjectSource.objects.values("project")
    return list(
        Project.objects.filter(pk__in=held.filter(source=new.source_id))
        .filter(pk__in=held.filter(source=old.source_id))
        .order_by("pk")
    )


def rivals_of(checkpoint: Checkpoint) -> list[tuple[str, Checkpoint]]:
    """Its parent, named "parent", and what `champion` stands for on the site and in each project, by alias."""
    rivals = [("parent", checkpoint.parent)] if checkpoint.parent else []
    moves = AliasMove.objects.filter(alias=CHAMPION).current().select_related("project", "checkpoint__source")
    rivals += [(str(move), move.checkpoint) for move in moves if move.checkpoint]
    return [(name, rival) for name, rival in rivals if rival.pk != checkpoint.pk]
