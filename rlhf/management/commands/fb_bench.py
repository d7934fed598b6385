from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlhf.benchmark_figures import as_data_set
from rlhf.evaluation.fb_bench import Refusal, read_dataset
from rlhf.evaluation.fb_bench_scores import score_file
from rlhf.management.benchmark_command import DATASET_HELP, BenchmarkCommand, figure
from rlhf.models import Benchmark, BenchmarkSet
from rlhf.services.benchmarks import import_benchmark_set, set_name_of


class Command(BenchmarkCommand):
    help = "FB-Bench: score judgments, or have a model answer the data set and a judge tick the checklists."
    kind = Benchmark.FB_BENCH
    judged_file = "judgments in the authors' shape"
    suffix = "jsonl"

    def add_score_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("judgments", type=Path, metavar="JUDGMENTS.jsonl")
        parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help=DATASET_HELP)

    def score(self, **options: Any) -> dict[str, Any]:
        stored = self.stored_set(options["dataset"])
        return score_file(options["judgments"], as_data_set(stored) if stored else read_dataset(options["dataset"]))

    def import_set(self, path: Path) -> tuple[BenchmarkSet, Iterable[Refusal]]:
        data_set = read_dataset(path)
        return import_benchmark_set(data_set, name=set_name_of(path))[0], data_set.refusals

    def print_for_people(self, result: dict[str, Any]) -> None:
        shown = ("error_correction", "response_maintenance", "overall")
        self.stdout.write(f"{'':24}{'correction':>12}{'maintenance':>13}{'overall':>9}")
        rows = [("macro", result), ("micro", result["micro"]), *result["by_task"].items()]
        rows += [("unusable as 0", result["at_worst"]), ("unusable as 1", result["at_best"])]
        for name, figures in rows:
            correction, maintenance, overall = (figure(figures[key]) for key in shown)
            self.stdout.write(f"{name:24}{correction:>12}{maintenance:>13}{overall:>9}")
        for name, share in result["by_deficiency"].items():
            self.stdout.write(f"{name:24}{figure(share):>12}")
        for name, figures in result["by_feedback"].items():
            correction, maintenance = (figure(figures.get(key)) for key in shown[:2])
            self.stdout.write(f"{name:24}{correction:>12}{maintenance:>13}")
        for key, value in result.items():
            if isinstance(value, int) or (key in ("failures", "empty_cells") and value):
                self.stdout.write(f"{key.replace('_', ' ')}: {value}")
        for line in result.get("problems", []):
            self.stdout.write(line)
