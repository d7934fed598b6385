"""Aliases: moving them, moving them back, and finding what they stand for."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import ConflictError, DomainError
from annotation.models import Project
from rlhf.models import AliasMove, Checkpoint, PromotionGate
from rlhf.promotion import Decision, decide

_ALIAS = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


class GateRefusedError(DomainError):
    """The checkpoint does not pass the alias's gate; `decision` says which criterion is how far off."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(
            gettext("%(alias)s stays where it is: %(name)s does not pass its gate (%(missing)s)")
            % {"alias": decision.gate, "name": decision.checkpoint.name, "missing": decision.missing}
        )
        self.decision = decision


def move_alias(
    alias: str,
    checkpoint: Checkpoint | None,
    *,
    why: str,
    project: Project | None = None,
    by: User | None = None,
    despite_gate: bool = False,
) -> AliasMove:
    """Let an alias stand for a checkpoint from now on, or for none; the log keeps what it stood for before.

    despite_gate: move it though the gate says no, which the log keeps with `why` and what the gate found.
    Raises DomainError for a name that cannot be one or that a checkpoint has, for no reason given, where it stands for
    that already or for another kind of model; GateRefusedError where a gate stands in the way; ConflictError where
    somebody else moved it at the same moment.
    """
    if not _ALIAS.fullmatch(alias):
        raise DomainError(
            gettext("the alias %(alias)r must be of lower-case letters, digits, hyphens and underscores")
            % {"alias": alias}
        )
    if Checkpoint.objects.filter(name=alias).exists():
        raise DomainError(gettext("%(alias)s is the name of a checkpoint; take another alias") % {"alias": alias})
    why = why.strip()
    if not why:
        raise DomainError(gettext("say why the alias moves: whoever moves it next will want to know"))
    last = AliasMove.objects.filter(alias=alias, project=project).order_by("-number").first()
    previous = last.checkpoint if last else None
    if checkpoint == previous:
        raise DomainError(
            gettext("%(alias)s stands for %(name)s already") % {"alias": alias, "name": checkpoint.name}
            if checkpoint
            else gettext("%(alias)s stands for nothing already") % {"alias": alias}
        )
    if checkpoint and previous and checkpoint.kind != previous.kind:
        raise DomainError(
            gettext("%(alias)s stands for %(previous)s, which %(kind)s; %(name)s does not. Take another alias")
            % {
                "alias": alias,
                "previous": previous.name,
                "kind": previous.get_kind_display(),
                "name": checkpoint.name,
            }
        )
    decision = _decision(alias, project, checkpoint) if checkpoint else None
    passed = decision is None or decision.is_passed
    if decision and not passed and not despite_gate:
        raise GateRefusedError(decision)
    return _store_move(
        alias=alias,
        project=project,
        number=last.number + 1 if last else 1,
        previous=previous,
        checkpoint=checkpoint,
        why=why,
        gate=decision.as_json() if decision else {},
        despite_gate=not passed,
        moved_by=by,
    )


def _decision(alias: str, project: Project | None, checkpoint: Checkpoint) -> Decision | None:
    gate = PromotionGate.objects.filter(alias=alias, project=project).select_related("project", "benchmark").first()
    return decide(gate, checkpoint) if gate else None


def _store_move(**values: Any) -> AliasMove:
    try:
        with transaction.atomic():
            return AliasMove.objects.create(**values)
    except IntegrityError:
        raise ConflictError(
            gettext("somebody moved %(alias)s just now; look at what it stands for and try again")
            % {"alias": values["alias"]}
        ) from None


def roll_back_alias(alias: str, *, project: Project | None = None, by: User | None = None) -> AliasMove:
    """Undo the newest move: one more move, to what the alias stood for before. Raises DomainError where none was.

    No gate is asked: the way back must stay open.
    """
    last = AliasMove.objects.filter(alias=alias, project=project).order_by("-number").first()
    if last is None:
        raise DomainError(gettext("there is no alias %(alias)s here") % {"alias": alias})
    return _store_move(
        alias=alias,
        project=project,
        number=last.number + 1,
        previous=last.checkpoint,
        checkpoint=last.previous,
        why=gettext("rolled back: %(why)s") % {"why": last.why},
        moved_by=by,
    )


def set_gate(gate: PromotionGate, *, by: User | None = None) -> PromotionGate:
    """Store a gate's thresholds, in place of those that the alias had. Raises DomainError for impossible ones."""
    if not _ALIAS.fullmatch(gate.alias):
        raise DomainError(
            gettext("the alias %(alias)r must be of lower-case letters, digits, hyphens and underscores")
            % {"alias": gate.alias}
        )
    if gate.least_win_rate is None and gate.benchmark is None and gate.least_reward_accuracy is None:
        raise DomainError(gettext("a gate must ask for something: a win rate, a benchmark or an accuracy"))
    gate.changed_by, gate.changed_at = by, timezone.now()
    gate.clean_fields(exclude=["changed_by"])
    known = PromotionGate.objects.filter(alias=gate.alias, project=gate.project).first()
    if known:
        gate.pk = known.pk
    gate.save(force_update=known is not None, force_insert=known is None)
    return gate


def remove_gate(gate: PromotionGate) -> None:
    """Let the alias move freely from now on; what earlier moves found stays with them."""
    gate.delete()


def is_alias(name: str) -> bool:
    """Whether the name was ever an alias: no checkpoint may take it, or old commands would mean something else."""
    return AliasMove.objects.filter(alias=name).exists()


def resolve_alias(name: str, project: Project | None = None) -> Checkpoint | None:
    """What `champion` or `PROJECT/champion` stands for; None where no alias of that name stands for anything.

    Without a project in the name: that of the given project, else of the whole site, else of the only project that has
    one. Raises DomainError where several have one.
    """
    slug, _, alias = name.rpartition("/")
    moves = [
        move
        for move in AliasMove.objects.filter(alias=alias).current().select_related("project", "checkpoint")
        if move.checkpoint
    ]
    if slug:
        chosen = [move for move in moves if move.project and move.project.slug == slug]
    else:
        chosen = (
            [move for move in moves if project and move.project_id == project.pk]
            or [move for move in moves if move.project_id is None]
            or moves
        )
    if len(chosen) > 1:
        raise DomainError(
            gettext("several projects have an alias %(alias)s; name one of %(names)s")
            % {"alias": alias, "names": ", ".join(sorted(map(str, chosen)))}
        )
    return chosen[0].checkpoint if chosen else None


def aliases_by_checkpoint() -> dict[int, list[str]]:
    """What stands for which checkpoint now, as `champion` or `PROJECT/champion`; one query."""
    standing: dict[int, list[str]] = {}
    for move in AliasMove.objects.current().select_related("project"):
        if move.checkpoint_id:
            standing.setdefault(move.checkpoint_id, []).append(str(move))
    return standing
