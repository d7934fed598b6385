"""`cfbench` and `sysbench`: what differs from the other benchmarks' commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rlhf.evaluation.constraint_sets import ConstraintSet
from rlhf.evaluation.fb_bench import Refusal, read_bytes
from rlhf.management.benchmark_command import BenchmarkCommand, figure
from rlhf.models import Benchmark, BenchmarkSet
from rlhf.services.benchmarks import set_name_of
from rlhf.services.constraint_sets import import_constraint_set

RATES = ("csr", "isr", "psr", "ssr")


class ConstraintCommand(BenchmarkCommand):
    """A subclass names its benchmark and the functions that read its files."""

    kind: Benchmark
    score_file: Callable[[Path], dict[str, Any]]
    parse: Callable[[bytes, str], ConstraintSet]

    def score(self, **options: Any) -> dict[str, Any]:
        return self.score_file(options["file"])

    def import_set(self, path: Path) -> tuple[BenchmarkSet, Iterable[Refusal]]:
        found = self.parse(read_bytes(path), str(path))
        return import_constraint_set(found, self.kind, name=set_name_of(path))[0], found.refusals

    def print_for_people(self, result: dict[str, Any]) -> None:
        """Rates in columns; then shares, counts, and what was wrong."""
        shown = [name for name in RATES if name in result]
        self.stdout.write(" " * 24 + "".join(f"{name.upper():>9}" for name in shown))
        rows = [("all", result), *result.get("by_split", {}).items()]
        rows += [(name.replace("_", " "), result[name]) for name in ("at_worst", "at_best") if name in result]
        for name, figures in rows:
            self.stdout.write(f"{name:24}" + "".join(f"{figure(figures.get(key)):>9}" for key in shown))
        for slices in ("by_priority", "by_type"):
            for name, found in result.get(slices, {}).items():
                self.stdout.write(f"{name:24}{figure(found['share']):>9} of {found['count']} constraints")
        for key, value in result.items():
            if isinstance(value, int | list) or key in ("failures", "csr_by_type", "isr_by_alignment"):
                self.stdout.write(f"{key.replace('_', ' ')}: {value}")
