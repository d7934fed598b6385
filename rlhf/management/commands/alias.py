from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.errors import DomainError
from annotation.management.script import ScriptCommand, find_project
from rlhf.models import AliasMove
from rlhf.services import find_checkpoint, move_alias, roll_back_alias


class Command(ScriptCommand):
    help = "Names such as `champion` that move from checkpoint to checkpoint: list them, move one, or move it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("alias", nargs="?", help="lower-case letters, digits, hyphens; empty lists all")
        parser.add_argument("--project", metavar="SLUG", help="the alias of this project; default: of the whole site")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--to", metavar="CHECKPOINT", help="let it stand for this one")
        what.add_argument("--back", action="store_true", help="let it stand for what it stood for before")
        what.add_argument("--remove", action="store_true", help="let it stand for nothing")
        parser.add_argument("--why", default="", help="kept in the log")
        parser.add_argument("--despite-gate", action="store_true", help="move it though its gate says no; say why")

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"]) if options["project"] else None
        alias = options["alias"]
        if not alias:
            moves = AliasMove.objects.current()
            if project:
                moves = moves.filter(project=project)
            return {"aliases": [_row(move) for move in moves if move.checkpoint]}
        if options["back"]:
            return _row(roll_back_alias(alias, project=project))
        if options["to"] or options["remove"]:
            checkpoint = find_checkpoint(options["to"], project) if options["to"] else None
            despite_gate = options["despite_gate"]
            return _row(move_alias(alias, checkpoint, why=options["why"], project=project, despite_gate=despite_gate))
        moves = AliasMove.objects.filter(alias=alias, project=project).order_by("-number")
        if not moves:
            raise DomainError(f"there is no alias {alias} here yet; --to CHECKPOINT --why TEXT makes it")
        return {"alias": str(moves[0]), "moves": [_row(move) for move in moves]}


def _row(move: AliasMove) -> dict[str, Any]:
    return {
        "alias": str(move),
        "checkpoint": move.checkpoint.name if move.checkpoint else None,
        "from": move.previous.name if move.previous else None,
        "why": move.why,
        "despite_gate": move.despite_gate,
        "by": move.moved_by.username if move.moved_by else None,
        "at": move.moved_at.isoformat(),
    }
