"""A file that somebody uploads: which benchmark it is of, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User

from rlhf.evaluation.constraint_sets import parse_cfbench, parse_sysbench, shape_of
from rlhf.evaluation.fb_bench import Refusal, parse_dataset
from rlhf.models import Benchmark, BenchmarkSet
from rlhf.services.benchmarks import Imported, import_benchmark_run, import_benchmark_set
from rlhf.services.constraint_sets import import_constraint_run, import_constraint_set


@dataclass(frozen=True, slots=True)
class ImportedSet:
    data_set: BenchmarkSet
    is_new: bool
    items: int
    refusals: Sequence[Refusal]


def import_set_file(content: bytes, file_name: str, *, name: str, by: User | None = None) -> ImportedSet:
    """Raises UnusableFileError."""
    kind = Benchmark(shape_of(content, file_name))
    if kind == Benchmark.FB_BENCH:
        data_set = parse_dataset(content, file_name)
        stored, is_new = import_benchmark_set(data_set, name=name, by=by)
        return ImportedSet(stored, is_new, len(data_set.items), data_set.refusals)
    found = (parse_cfbench if kind == Benchmark.CFBENCH else parse_sysbench)(content, file_name)
    stored, is_new = import_constraint_set(found, kind, name=name, by=by)
    return ImportedSet(stored, is_new, len(found.exercises), found.refusals)


def import_run_file(data_set: BenchmarkSet, content: bytes, file_name: str, *, by: User | None = None) -> Imported:
    """Raises UnusableFileError."""
    read = import_benchmark_run if data_set.kind == Benchmark.FB_BENCH else import_constraint_run
    return read(data_set, content, file_name, by=by)
