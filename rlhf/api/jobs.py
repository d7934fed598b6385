"""Training jobs, the data sets that they learn from and the workers that run them."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import RefusalSerializer, person
from annotation.models import Project
from annotation.services import DomainError
from rlhf.api import job_shapes as shapes
from rlhf.api.common import REFUSED, StaffList, StaffView, checkpoint_named, given, refused
from rlhf.comparison import BASE, compare
from rlhf.comparison_files import as_csv
from rlhf.job_measures import measure
from rlhf.launch_config import LaunchConfig, parse_config
from rlhf.models import DatasetSnapshot, GPUSlot, JobStatus, Method, Priority, TrainingJob, Worker
from rlhf.options import SpecError
from rlhf.scored_samples import scored_samples
from rlhf.services import (
    check_launch,
    create_snapshot,
    queue_merge_job,
    request_pause,
    resume_training_job,
    start_checked_job,
    stop_training_job,
)
from rlhf.services.jobs import retry_with_half_micro_batch
from rlhf.services.launching import findings_of, launch_config
from rlhf.services.sweeps import check_sweep, combinations, queue_sweep
from rlhf.views.job_compare import JOBS_COMPARED
from rlhf.views.jobs import read_log

_LISTED = ("snapshot__project", "base", "checkpoint", "created_by")
_SHOWN = (*_LISTED, "reward_model", "worker", "proceeded_by")


def find_job(pk: int) -> TrainingJob:
    return get_object_or_404(TrainingJob.objects.select_related(*_SHOWN), pk=pk)


def _shown(pk: int, code: int = status.HTTP_200_OK) -> Response:
    return Response(shapes.JobDetailSerializer(find_job(pk)).data, status=code)


class Jobs(StaffList):
    """Training jobs, newest first."""

    serializer_class = shapes.JobSerializer
    filters = shapes.JobFilters

    @extend_schema(operation_id="list_jobs", parameters=[shapes.JobFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[TrainingJob]:
        return TrainingJob.objects.like(**asked).select_related(*_LISTED)

    @extend_schema(
        operation_id="launch_job",
        request=shapes.LaunchSerializer,
        responses={201: shapes.JobDetailSerializer, 422: shapes.LaunchRefusedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Check a launch and start it; where a check blocks, 422 has the findings.

        To clone a job, send its `config/`, changed or not. Every call starts a job of its own.
        """
        asked = given(shapes.LaunchSerializer, request)
        body = dict(request.data)
        config = _config({name: body[name] for name in body if name != "proceed"})
        if config.method == Method.MERGE:
            return _start_merge(config, person(request))
        snapshot = DatasetSnapshot.objects.select_related("project").filter(name=config.snapshot).first()
        if snapshot is None:
            raise DomainError(f"there is no data set {config.snapshot!r}; see snapshots/")
        check = check_launch(
            snapshot=snapshot,
            method=config.method,
            base=checkpoint_named(config.base, snapshot.project),
            options=config.options,
            name=config.name,
            label=asked["label"],
            gpus=asked["gpus"],
            priority=Priority[asked["priority"].upper()],
            created_by=person(request),
        )
        try:
            job = start_checked_job(check, proceed=asked["proceed"], created_by=person(request))
        except DomainError as error:
            return refused(error, findings=shapes.findings_json(findings_of(check)))
        return _shown(job.pk, status.HTTP_201_CREATED)


def _config(body: dict[str, Any]) -> LaunchConfig:
    try:
        return parse_config(json.dumps(body))
    except SpecError as error:
        raise DomainError(str(error)) from None


def _start_merge(config: LaunchConfig, by: User) -> Response:
    if config.snapshot:
        raise DomainError("merge takes no data set: leave snapshot out")
    job = queue_merge_job(
        base=checkpoint_named(config.base),
        options=config.options,
        name=config.name,
        label=config.label,
        gpus=config.gpus,
        priority=Priority[config.priority.upper()],
        created_by=by,
    )
    return _shown(job.pk, status.HTTP_201_CREATED)


class JobDetail(StaffView):
    @extend_schema(operation_id="get_job", responses=shapes.JobDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Where a job stands, what was found before its start, and what it gave."""
        return _shown(pk)


class JobConfig(StaffView):
    @extend_schema(operation_id="get_job_config", responses=shapes.LaunchSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """The launch as the form, `train --config` and `POST jobs/` read it."""
        return Response(launch_config(find_job(pk)).as_dict())


class JobLog(StaffView):
    @extend_schema(operation_id="get_job_log", responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request, pk: int) -> HttpResponse:
        """The end of what its process wrote; empty before there is any."""
        return HttpResponse(read_log(find_job(pk)), content_type="text/plain; charset=utf-8")


class StopJob(StaffView):
    @extend_schema(
        operation_id="stop_job",
        request=shapes.StopSerializer,
        responses={200: shapes.JobDetailSerializer, **REFUSED},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Stop a job and keep or discard what was learnt; one that waits without a checkpoint is cancelled at once."""
        stop_training_job(find_job(pk), given(shapes.StopSerializer, request)["mode"])
        return _shown(pk)


class PauseJob(StaffView):
    @extend_schema(operation_id="pause_job", request=None, responses={200: shapes.JobDetailSerializer, **REFUSED})
    def post(self, request: Request, pk: int) -> Response:
        """Have a job save a checkpoint and free its worker."""
        request_pause(find_job(pk))
        return _shown(pk)


class ResumeJob(StaffView):
    @extend_schema(operation_id="resume_job", request=None, responses={200: shapes.JobDetailSerializer, **REFUSED})
    def post(self, request: Request, pk: int) -> Response:
        """Put a paused job back into the queue, or one that failed with a checkpoint, to go on from there."""
        resume_training_job(find_job(pk))
        return _shown(pk)


class RetryJob(StaffView):
    @extend_schema(
        operation_id="retry_job",
        request=None,
        responses={200: shapes.JobDetailSerializer, 201: shapes.JobDetailSerializer, **REFUSED},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Have a job that ran out of memory take half as many rows at once: the same, which goes on from its last
        checkpoint, or another where it has none. Asked again, the same job."""
        retry = retry_with_half_micro_batch(find_job(pk), person(request))
        return _shown(retry.pk, status.HTTP_200_OK if retry.pk == pk else status.HTTP_201_CREATED)


class SweepJob(StaffView):
    @extend_schema(
        operation_id="sweep_job",
        request=shapes.SweepSerializer,
        responses={200: shapes.PlannedSweepSerializer, 201: shapes.PlannedSweepSerializer, **REFUSED},
    )
    def post(self, request: Request, pk: int) -> Response:
        """A job again with every combination of these values: what they are, and with their `count`, all started."""
        job = find_job(pk)
        if job.snapshot is None:
            raise DomainError("a merge has no sweep: it learns nothing")
        asked = given(shapes.SweepSerializer, request)
        try:
            planned = combinations(job, [(name, [*map(_typed, values)]) for name, values in asked["options"].items()])
        except SpecError as error:
            raise DomainError(str(error)) from None
        answer: dict[str, Any] = {"count": len(planned), "jobs": []}
        if "count" not in asked:
            return Response(answer | {"planned": _with_findings(job, planned)})
        if asked["count"] != len(planned):
            raise DomainError(f"these are {len(planned)} jobs, not {asked['count']}; nothing was started")
        try:
            made = queue_sweep(job, planned, person(request), proceed=asked["proceed"])
        except DomainError as error:
            return refused(error, planned=_with_findings(job, planned))
        answer["planned"] = [
            {"options": values, "findings": shapes.findings_of_job(one)}
            for values, one in zip(planned, made, strict=True)
        ]
        return Response(answer | {"jobs": [one.pk for one in made]}, status=status.HTTP_201_CREATED)


def _with_findings(job: TrainingJob, planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"options": values, "findings": shapes.findings_json(outcome.findings)}
        for values, outcome in zip(planned, check_sweep(job, planned), strict=True)
    ]


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class CompareJobs(StaffView):
    query = ("job", "against")

    @extend_schema(
        operation_id="compare_jobs",
        parameters=[
            OpenApiParameter("job", int, many=True, required=True, description="Two to six."),
            OpenApiParameter("against", description="A job's id, or base; deltas are from it."),
        ],
        responses={(200, "text/csv"): OpenApiTypes.STR, 422: RefusalSerializer},
    )
    def get(self, request: Request) -> HttpResponse:
        """Evaluations, deltas and cost of several jobs, a line each, as CSV: the table of the page."""
        asked = [pk for pk in dict.fromkeys(request.query_params.getlist("job")) if pk.isdecimal() and len(pk) < 10]
        found = TrainingJob.objects.select_related("snapshot__project", "base__source", "checkpoint__source").in_bulk(
            [int(pk) for pk in asked]
        )
        jobs = [found[int(pk)] for pk in asked if int(pk) in found]
        if not 2 <= len(jobs) <= JOBS_COMPARED:
            raise DomainError(f"name two to {JOBS_COMPARED} jobs that are here, as job=1&job=2")
        against = request.query_params.get("against", "")
        key = BASE if against == "base" else int(against) if against in asked else None
        if against and key is None:
            raise DomainError(f"against is one of the jobs named, or base, not {against!r}")
        return HttpResponse(as_csv(compare(jobs, *measure(jobs, scored_samples(jobs)), key)), content_type="text/csv")


# ── Data sets and workers ────────────────────────────────────────────────────────────────────────────────────────


class _SnapshotFilters(serializers.Serializer):
    project = serializers.SlugField(required=False)


class _NewSnapshotSerializer(serializers.Serializer):
    project = serializers.SlugField()
    name = serializers.SlugField(max_length=100)
    eval_share = serializers.FloatField(required=False, default=0.1, min_value=0, max_value=0.9)
    humans_only = serializers.BooleanField(required=False, default=True)


class Snapshots(StaffList):
    """Data sets for training, newest first."""

    serializer_class = shapes.SnapshotSerializer
    filters = _SnapshotFilters

    @extend_schema(operation_id="list_snapshots", parameters=[_SnapshotFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[DatasetSnapshot]:
        found = DatasetSnapshot.objects.select_related("project", "created_by")
        return found.filter(project__slug=asked["project"]) if "project" in asked else found

    @extend_schema(
        operation_id="create_snapshot",
        request=_NewSnapshotSerializer,
        responses={201: shapes.SnapshotSerializer, **REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Freeze the judged comparisons of a project."""
        asked = given(_NewSnapshotSerializer, request)
        project = get_object_or_404(Project, slug=asked.pop("project"))
        stored = create_snapshot(project, **asked, created_by=person(request))
        return Response(shapes.SnapshotSerializer(stored).data, status=status.HTTP_201_CREATED)


class _WorkerFilters(serializers.Serializer):
    is_present = serializers.BooleanField(required=False, default=False, help_text="Only those that live.")


class Workers(StaffList):
    """Workers that trained here, those that came last first."""

    serializer_class = shapes.WorkerSerializer
    filters = _WorkerFilters

    @extend_schema(operation_id="list_workers", parameters=[_WorkerFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[Worker]:
        running = TrainingJob.objects.filter(status=JobStatus.RUNNING)
        known = Worker.objects.prefetch_related(Prefetch("jobs", running))
        return known.present() if asked.get("is_present") else known


class GPUs(StaffView):
    @extend_schema(operation_id="list_gpus", responses=shapes.GPUSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Every GPU of the workers' machines and the job that has it."""
        taken = set(GPUSlot.objects.taken().values_list("pk", flat=True))
        slots = list(GPUSlot.objects.all())
        for slot in slots:
            if slot.pk not in taken:
                slot.job = None
        return Response(shapes.GPUSerializer(slots, many=True).data)
