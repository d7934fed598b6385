from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.models import Study
from annotation.services import DomainError
from annotation.study_figures import figures_of


class Command(ScriptCommand):
    help = "What people found in a human evaluation: good/same/bad and win rates, or pass rates, with intervals."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", metavar="NAME")

    def run(self, **options: Any) -> dict[str, Any]:
        study = Study.objects.select_related("project", "source", "against").filter(name=options["name"]).first()
        if study is None:
            known = ", ".join(Study.objects.order_by("-pk").values_list("name", flat=True)[:20]) or "none yet"
            raise DomainError(f"there is no evaluation {options['name']!r}; known: {known}")
        return figures_of(study)

    def print_for_people(self, result: dict[str, Any]) -> None:
        judged = f"{result['judged']} of {result['items']} items judged"
        if result["kind"] == "gsb":
            self.stdout.write(f"{result['new']} against {result['old']}: {judged}")
            self.stdout.write(result["sentence"])
            for line in [{"label": "all"}, *result["slices"]]:
                found = line if "axis" in line else result
                name = f"{line['axis']} {line['label'] or 'not labelled'}" if "axis" in line else "all"
                self.stdout.write(
                    f"{name:<28} {found['good']:>6} {found['same']:>6} {found['bad']:>6}"
                    f"  {_share(found['win_rate'])}  at equal length {_share(found['win_rate_at_equal_length'])}"
                )
            return
        for model in result["models"]:
            self.stdout.write(f"{model['model']}: {judged}, {model['ratings']} ratings")
            for name in ("pass_rate", "intent", "accuracy", "language", "safety", "satisfaction_rate"):
                self.stdout.write(f"  {name.replace('_', ' '):<18} {_share(model[name])}")


def _share(share: dict[str, float] | None) -> str:
    if share is None:
        return "not defined"
    return f"{share['value']:.1%} ({share['lower']:.1%}-{share['upper']:.1%})"
