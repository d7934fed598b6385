from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from annotation.agreement import RESAMPLES, Undefined, measure_agreement
from annotation.management.script import ScriptCommand, find_project


class Command(ScriptCommand):
    help = (
        "How far the people who judged the same comparisons agree, with 95 % bootstrap intervals. "
        "An undefined number is null, and not_defined says why."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")
        parser.add_argument(
            "--resamples",
            type=int,
            default=RESAMPLES,
            metavar="N",
            help=f"of the bootstrap; 0: no intervals (default {RESAMPLES})",
        )

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        found = measure_agreement(project, humans_only=options["humans_only"], resamples=max(0, options["resamples"]))
        return _plain(dataclasses.asdict(found))

    def print_for_people(self, result: dict[str, Any]) -> None:
        for name, value in result.items():
            if name in ("intervals", "not_defined", "weights", "by_strength", "shared_items"):
                continue
            reasons, intervals = result["not_defined"].get(name), result["intervals"].get(name)
            if isinstance(value, dict):
                for pair, kappa in value.items():
                    line = _figure(kappa, (intervals or {}).get(pair), (reasons or {}).get(pair))
                    self.stdout.write(f"{name.replace('_', ' ')} {pair}: {line}")
            else:
                weights = f" ({result['weights'][name]})" if name in result["weights"] else ""
                self.stdout.write(f"{name.replace('_', ' ')}{weights}: {_figure(value, intervals, reasons)}")
        for row in result["by_strength"]:
            line = _figure(row["agreement"], row["interval"], None)
            self.stdout.write(f"agreement of votes of strength {row['strength']}: {line}, of {row['pairs']} pairs")


def _figure(value: Any, interval: list[float] | None, reason: str | None) -> str:
    if value is None:
        return f"not defined: {reason}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" + (f" (95 % {interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def _plain(value: Any) -> Any:
    """Reasons as their sentences."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return str(value.label) if isinstance(value, Undefined) else value
