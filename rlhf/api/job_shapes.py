"""Shapes of training jobs, data sets for training and workers."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from rlhf.models import (
    CancelMode,
    DatasetSnapshot,
    GPUSlot,
    JobAlarm,
    JobStatus,
    Method,
    Priority,
    TrainingJob,
    Worker,
)
from rlhf.preflight import Finding, sentence
from rlhf.services import seconds_left
from rlhf.services.workers import Queue


class FindingSerializer(serializers.Serializer):
    """What a check before the start found."""

    level = serializers.ChoiceField(choices=["passed", "warned", "blocked", "refused"])
    code = serializers.CharField()
    values = serializers.DictField()
    text = serializers.CharField()


def findings_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [finding.as_json() | {"text": sentence(finding)} for finding in findings]


def findings_of_job(job: TrainingJob) -> list[dict[str, Any]]:
    return findings_json([Finding.from_json(one) for one in job.preflight.get("checks", [])])


class AlarmSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobAlarm
        fields = ["code", "step", "value", "raised_at"]


class JobSerializer(serializers.ModelSerializer):
    """A job as a line of the list."""

    project = serializers.CharField(source="snapshot.project.slug", default=None)
    snapshot = serializers.CharField(source="snapshot.name", default=None)
    base = serializers.CharField(source="base.name")
    checkpoint = serializers.CharField(source="checkpoint.name", default=None, help_text="What it made.")
    stopping = serializers.ChoiceField(
        source="cancel_mode",
        choices=[mode.value for mode in CancelMode],
        help_text="What its worker was asked to do: keep, discard or pause; empty: to go on.",
    )
    created_by = serializers.CharField(source="created_by.username", default=None)
    page = serializers.SerializerMethodField(help_text="Where people see it.")

    class Meta:
        model = TrainingJob
        fields = [
            "id", "name", "method", "status", "stopping", "project", "snapshot", "base", "checkpoint", "step",
            "total_steps", "attempt", "label", "gpus", "priority", "created_by", "queued_at", "started_at",
            "finished_at", "failure_class", "error", "page",
        ]  # fmt: skip

    def get_page(self, job: TrainingJob) -> str:
        return reverse("job_detail", args=[job.pk])


class JobDetailSerializer(JobSerializer):
    """A job with everything that its page says; figures over the steps are under `metrics`."""

    reward_model = serializers.CharField(source="reward_model.name", default=None)
    worker = serializers.CharField(source="worker.name", default=None)
    retry_of = serializers.IntegerField(source="retry_of_id", default=None)
    proceeded_by = serializers.CharField(source="proceeded_by.username", default=None)
    findings = serializers.SerializerMethodField(help_text="Of the checks before the start.")
    alarms = AlarmSerializer(many=True)
    jobs_before = serializers.SerializerMethodField(help_text="While it waits: those whose turn is earlier.")
    waits_because = serializers.SerializerMethodField()
    seconds_left = serializers.SerializerMethodField(help_text="While it runs: an estimate from its steps.")
    links = serializers.SerializerMethodField()

    class Meta(JobSerializer.Meta):
        fields = [
            *JobSerializer.Meta.fields, "options", "metrics", "findings", "proceeded_at", "proceeded_by",
            "reward_model", "worker", "retry_of", "resume_from", "paused_for", "process_seconds", "code_version",
            "jobs_before", "waits_because", "seconds_left", "alarms", "links",
        ]  # fmt: skip

    def to_representation(self, instance: TrainingJob) -> dict[str, Any]:
        self._queue = Queue.now() if instance.status == JobStatus.QUEUED else None
        return super().to_representation(instance)

    @extend_schema_field(FindingSerializer(many=True))
    def get_findings(self, job: TrainingJob) -> list[dict[str, Any]]:
        return findings_of_job(job)

    def get_jobs_before(self, job: TrainingJob) -> int | None:
        return self._queue.jobs_before(job) if self._queue else None

    def get_waits_because(self, job: TrainingJob) -> str:
        return self._queue.reason(job) if self._queue else ""

    def get_seconds_left(self, job: TrainingJob) -> float | None:
        return seconds_left(job)

    def get_links(self, job: TrainingJob) -> dict[str, str]:
        here = f"/api/v1/jobs/{job.pk}/"
        links = {name: f"{here}{name}/" for name in ("metrics", "config", "log")}
        if hasattr(job, "checkpoint"):
            links["checkpoint"] = f"/api/v1/checkpoints/{job.checkpoint.pk}/"
        return links


class JobFilters(serializers.Serializer):
    status = serializers.ChoiceField(choices=[one.value for one in JobStatus], required=False)
    method = serializers.ChoiceField(choices=[one.value for one in Method], required=False)
    project = serializers.SlugField(required=False, help_text="Of the data set that it learns from.")
    snapshot = serializers.SlugField(required=False)


class PlacementSerializer(serializers.Serializer):
    """What stands beside the config in a launch."""

    label = serializers.SlugField(  # type: ignore[assignment]
        required=False, default="", allow_blank=True, max_length=50, help_text="Of the workers that may take it."
    )
    gpus = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=64, help_text="How many its worker must have free."
    )
    priority = serializers.ChoiceField(
        choices=[name.lower() for name in Priority.names], required=False, default="normal"
    )
    proceed = serializers.BooleanField(
        required=False, default=False, help_text="Start against a check that blocks; your name is kept with the job."
    )


class LaunchSerializer(PlacementSerializer):
    """A launch: the config as a job's page gives it, where it may run, and whether to go on against a check."""

    format = serializers.IntegerField(required=False, help_text="1")
    method = serializers.ChoiceField(choices=Method.choices)
    snapshot = serializers.CharField(required=False, allow_blank=True, help_text="Needed by every method but merge.")
    base = serializers.CharField(help_text="A checkpoint or an alias.")
    name = serializers.SlugField(
        required=False, allow_blank=True, max_length=100, help_text="Of the job and of its checkpoint."
    )
    options = serializers.DictField(required=False, help_text="As in rlhf/options; the rest is at its default.")


class LaunchRefusedSerializer(serializers.Serializer):
    detail = serializers.CharField()
    findings = FindingSerializer(many=True)


class StopSerializer(serializers.Serializer):
    mode = serializers.ChoiceField(
        choices=["keep", "discard"], help_text="Whether what was learnt so far becomes a checkpoint."
    )


class SweepSerializer(serializers.Serializer):
    proceed = serializers.BooleanField(
        required=False, default=False, help_text="Start against a check that blocks; your name is kept with the jobs."
    )
    options = serializers.DictField(
        child=serializers.ListField(child=serializers.JSONField(), allow_empty=False),
        help_text='By option, the values that it takes: {"learning_rate": [1e-5, 2e-5]}.',
    )
    count = serializers.IntegerField(
        required=False, help_text="How many jobs these make, to confirm it; without it nothing is started."
    )


class PlannedJobSerializer(serializers.Serializer):
    options = serializers.DictField()
    findings = FindingSerializer(many=True)


class PlannedSweepSerializer(serializers.Serializer):
    count = serializers.IntegerField()
    planned = PlannedJobSerializer(many=True)
    jobs = serializers.ListField(child=serializers.IntegerField(), help_text="Those that were started.")


class SnapshotSerializer(serializers.ModelSerializer):
    project = serializers.CharField(source="project.slug")
    created_by = serializers.CharField(source="created_by.username", default=None)

    class Meta:
        model = DatasetSnapshot
        fields = [
            "id", "name", "project", "sha256", "eval_share", "train_rows", "eval_rows", "prompt_count",
            "judgment_count", "humans_only", "created_by", "created_at",
        ]  # fmt: skip


class GPUSerializer(serializers.ModelSerializer):
    class Meta:
        model = GPUSlot
        fields = ["host", "index", "name", "memory_gb", "job"]


class WorkerSerializer(serializers.ModelSerializer):
    is_present = serializers.BooleanField()
    labels = serializers.ListField(child=serializers.CharField(), help_text='Of the jobs that it takes; "": without.')
    jobs = serializers.SerializerMethodField(help_text="Training jobs that it runs now.")

    class Meta:
        model = Worker
        fields = [
            "id", "name", "host", "is_present", "labels", "queues", "cpu_cores", "memory_gb", "code_version", "jobs",
            "started_at", "seen_at", "left_at",
        ]  # fmt: skip

    def get_jobs(self, worker: Worker) -> list[int]:
        return [job.pk for job in worker.jobs.all()]
