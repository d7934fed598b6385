"""Tables of the training side: frozen data sets, jobs and what came out of them.

Lineage: DatasetSnapshot → TrainingJob → Checkpoint → annotation.ResponseSource → responses → judgments. Status columns
are written only by the transition functions in `services`.
"""

from rlhf.models.aliases import AliasMove
from rlhf.models.checkpoints import Checkpoint, CheckpointKind
from rlhf.models.evaluation import (
    Benchmark,
    BenchmarkAnswer,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkRun,
    BenchmarkSet,
    BenchmarkTicks,
    Checklist,
    JudgmentFailure,
    PromptLanguage,
)
from rlhf.models.generation import GenerationJob
from rlhf.models.judges import JudgeKind, JudgeOutcome, JudgePrompt, JudgeRun, JudgeScope, JudgeVerdict
from rlhf.models.launching import LaunchCheck, ProbeStatus
from rlhf.models.leased import FINAL_STATUSES, AskingJob, JobStatus, LeasedJob, leased_job_constraints
from rlhf.models.merging import MergeInput
from rlhf.models.periodic import STUDY_KINDS, EvaluationPlan, JobEvaluation, PlanKind, PromptEvaluation
from rlhf.models.placement import Priority
from rlhf.models.promotion import PromotionGate, Voters
from rlhf.models.reward_cards import RewardCard
from rlhf.models.sample_scores import SampleScores
from rlhf.models.snapshots import DatasetSnapshot
from rlhf.models.training import CancelMode, FailureClass, JobCheckpoint, JobMetric, Method, Point, TrainingJob
from rlhf.models.watching import AlarmCode, InsightKind, JobAlarm, JobInsight
from rlhf.models.workers import GPUSlot, Worker, queue_of

__all__ = [
    "FINAL_STATUSES",
    "STUDY_KINDS",
    "AlarmCode",
    "AliasMove",
    "AskingJob",
    "Benchmark",
    "BenchmarkAnswer",
    "BenchmarkItem",
    "BenchmarkJudgment",
    "BenchmarkRun",
    "BenchmarkSet",
    "BenchmarkTicks",
    "CancelMode",
    "Checklist",
    "Checkpoint",
    "CheckpointKind",
    "DatasetSnapshot",
    "EvaluationPlan",
    "FailureClass",
    "GPUSlot",
    "GenerationJob",
    "InsightKind",
    "JobAlarm",
    "JobCheckpoint",
    "JobEvaluation",
    "JobInsight",
    "JobMetric",
    "JobStatus",
    "JudgeKind",
    "JudgeOutcome",
    "JudgePrompt",
    "JudgeRun",
    "JudgeScope",
    "JudgeVerdict",
    "JudgmentFailure",
    "LaunchCheck",
    "LeasedJob",
    "MergeInput",
    "Method",
    "PlanKind",
    "Point",
    "Priority",
    "ProbeStatus",
    "PromotionGate",
    "PromptEvaluation",
    "PromptLanguage",
    "RewardCard",
    "SampleScores",
    "TrainingJob",
    "Voters",
    "Worker",
    "leased_job_constraints",
    "queue_of",
]
