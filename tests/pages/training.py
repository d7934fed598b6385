"""Jobs as their workers leave them, and the form that launches one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.forms import OptionsForm
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, TrainingJob
from rlhf.services import create_snapshot, jobs, leases, queue_training_job
from rlhf.services.checkpoints import register_checkpoint
from tests.factories import make_judged_project


def make_job(base: Checkpoint, method: str = "dpo", **options: Any) -> TrainingJob:
    project = make_judged_project()
    snapshot = create_snapshot(project, project.slug, eval_share=0.25)
    return queue_training_job(snapshot=snapshot, method=method, base=base, options=options, name="round-1")


def log_steps(job: TrainingJob, count: int) -> TrainingJob:
    """Claim the job and log steps as its worker would."""
    claimed = leases.claim_job(TrainingJob, job.pk, "node-3:42:abc")
    assert claimed is not None
    for step in range(1, count + 1):
        line = {"step": step, "total_steps": 40, "loss": 0.7 - step / 100, "tokens_per_second": 231.0, "seconds": 1.0}
        jobs.record_progress(claimed, [line | {"rewards/chosen": 0.1, "peak_memory_gb": 2.1}])
    claimed.refresh_from_db()
    return claimed


def finish(job: TrainingJob, model: Path, **metrics: float) -> Checkpoint:
    leases.finish_job(job, "succeeded", metrics=metrics)
    kind = CheckpointKind.REWARD if job.method == "reward" else CheckpointKind.POLICY
    return register_checkpoint(name=f"{job}-out", kind=kind, directory=model, parent=job.base, job=job, step=40)


def launch_form(snapshot: DatasetSnapshot, base: Checkpoint, method: str = "dpo", **changes: object) -> dict[str, Any]:
    options = OptionsForm(method)
    form = {name: field.initial for name, field in options.fields.items() if field.initial is not False}
    form |= {"snapshot": snapshot.pk, "base": base.pk, "method": method, "name": "", "step": "check"}
    return {name: value for name, value in (form | changes).items() if value is not None}
