"""What supervising a training job costs beside the training itself.

    python -m benchmarks.supervisor [--model DIR] [--steps 60] [--batch 1] [--json FILE]

A worker's process, with Django, a database of its own and nothing else to do, runs a job as a worker does: claims it,
prepares its directory, starts the training process, stores what it logs, renews the lease, registers the checkpoint.
Memory is what this process has grown by at most since it was ready to work (its training process not counted); CPU is
its own, as a share of one core while the job ran.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.servers import ROOT, prepared_django


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


class Watch(threading.Thread):
    """The largest resident size, looked at four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.25):
            self.largest = max(self.largest, resident_mb())


def measure(model: Path, steps: int, batch: int) -> dict[str, Any]:
    from django.db import connection

    from annotation.models import Comparison
    from annotation.services import annotator_for, create_project
    from rlhf import supervisor
    from rlhf.models import JobStatus
    from rlhf.services import create_snapshot, queue_training_job, register_base_checkpoint
    from tests.factories import make_comparison, make_judgment, make_prompt, make_user

    project = create_project(slug="costs", name="Costs")
    annotator = annotator_for(make_user())
    for number in range(steps * batch + 8):
        prompt = make_prompt(project, f"What happens on day {number}, and why do people ask for it?")
        texts = {"a_text": f"Thank you. It is short on day {number}.", "b_text": f"Go away on day {number}."}
        make_judgment(make_comparison(project, prompt=prompt, **texts), "a", annotator=annotator)
    assert Comparison.objects.count() == steps * batch + 8
    snapshot = create_snapshot(project, "costs", eval_share=0.02)
    options = {"max_steps": steps, "batch_size": batch, "micro_batch_size": 1, "checkpoint_every_steps": steps // 2}
    base = register_base_checkpoint("base", model)
    job = queue_training_job(snapshot=snapshot, method="dpo", base=base, options=options, proceed=True)
    connection.ensure_connection()
    watch = Watch()
    before = watch.largest = resident_mb()
    watch.start()
    began, cpu_began = time.monotonic(), time.process_time()
    supervisor.run_training_job(job.pk)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu_began
    watch.done.set()
    job.refresh_from_db()
    if job.status != JobStatus.SUCCEEDED:
        sys.exit(f"the job {job.status}: {job.error}")
    return {
        "model": model.name,
        "steps": job.step,
        "seconds": round(seconds, 1),
        "ready_mb": round(before, 1),
        "extra_mb": round(watch.largest - before, 1),
        "cpu_seconds": round(cpu, 2),
        "cpu_share_of_a_core": round(cpu / seconds, 4),
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "var" / "models" / "smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    if not arguments.model.is_dir():
        sys.exit(f"{arguments.model} does not exist: run `python manage.py setup_model`, or name a --model")
    with prepared_django():
        figures = measure(arguments.model.resolve(), arguments.steps, arguments.batch)
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
