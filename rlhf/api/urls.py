"""Addresses of the API of training and evaluation, below `api/v1/`."""

from __future__ import annotations

from django.urls import path

from rlhf.api import jobs, metrics

JOB = "jobs/<int:pk>/"
urlpatterns = [
    path("jobs/", jobs.Jobs.as_view()),
    path("jobs/compare/", jobs.CompareJobs.as_view()),
    path(JOB, jobs.JobDetail.as_view()),
    path(JOB + "config/", jobs.JobConfig.as_view()),
    path(JOB + "log/", jobs.JobLog.as_view()),
    path(JOB + "metrics/", metrics.JobMetricsView.as_view()),
    path(JOB + "stop/", jobs.StopJob.as_view()),
    path(JOB + "pause/", jobs.PauseJob.as_view()),
    path(JOB + "resume/", jobs.ResumeJob.as_view()),
    path(JOB + "retry/", jobs.RetryJob.as_view()),
    path(JOB + "sweep/", jobs.SweepJob.as_view()),
    path("snapshots/", jobs.Snapshots.as_view()),
    path("workers/", jobs.Workers.as_view()),
    path("gpus/", jobs.GPUs.as_view()),
]
