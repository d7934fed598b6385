"""Every write of the training side, by concept. Callers import from here."""

from rlhf.services.aliases import aliases_by_checkpoint, move_alias, resolve_alias, roll_back_alias
from rlhf.services.checkpoints import find_checkpoint, publish_checkpoint, register_base_checkpoint
from rlhf.services.demo import seed_demo
from rlhf.services.generation import queue_generation_job
from rlhf.services.jobs import (
    queue_training_job,
    reconcile,
    resume_training_job,
    seconds_left,
    seconds_left_by_job,
    stop_training_job,
)
from rlhf.services.launching import check_launch, request_probe, start_checked_job
from rlhf.services.leases import broker_is_up, dispatch_job, request_cancel, request_pause
from rlhf.services.merging import queue_merge_job
from rlhf.services.sample_scores import prepare_sample_scores, request_sample_scores, score_samples
from rlhf.services.snapshots import create_snapshot

__all__ = [
    "aliases_by_checkpoint",
    "broker_is_up",
    "check_launch",
    "create_snapshot",
    "dispatch_job",
    "find_checkpoint",
    "move_alias",
    "prepare_sample_scores",
    "publish_checkpoint",
    "queue_generation_job",
    "queue_merge_job",
    "queue_training_job",
    "reconcile",
    "register_base_checkpoint",
    "request_cancel",
    "request_pause",
    "request_probe",
    "request_sample_scores",
    "resolve_alias",
    "resume_training_job",
    "roll_back_alias",
    "score_samples",
    "seconds_left",
    "seconds_left_by_job",
    "seed_demo",
    "start_checked_job",
    "stop_training_job",
]
