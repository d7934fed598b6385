"""Addresses of the API of training and evaluation, below `api/v1/`."""

from __future__ import annotations

from django.urls import path

from rlhf.api import benchmarks, checkpoints, jobs, judges, metrics, studies

BENCHMARK_RUN = "benchmarks/runs/<int:pk>/"
JUDGE_RUN = "judges/runs/<int:pk>/"
STUDIES = "projects/<slug:slug>/studies/"
CHECKPOINT = "checkpoints/<int:pk>/"
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
    path("checkpoints/", checkpoints.Checkpoints.as_view()),
    path(CHECKPOINT, checkpoints.CheckpointDetail.as_view()),
    path(CHECKPOINT + "report/", checkpoints.CheckpointReport.as_view()),
    path(CHECKPOINT + "publish/", checkpoints.PublishCheckpoint.as_view()),
    path(CHECKPOINT + "card.md", checkpoints.ModelCard.as_view()),
    path(CHECKPOINT + "model.tar", checkpoints.DownloadModel.as_view()),
    path(CHECKPOINT + "gates/<int:gate>/", checkpoints.GateVerdict.as_view()),
    path("aliases/", checkpoints.Aliases.as_view()),
    path("aliases/back/", checkpoints.RollBackAlias.as_view()),
    path("aliases/moves/", checkpoints.AliasMoves.as_view()),
    path("gates/", checkpoints.Gates.as_view()),
    path("snapshots/", jobs.Snapshots.as_view()),
    path("workers/", jobs.Workers.as_view()),
    path("gpus/", jobs.GPUs.as_view()),
    path("benchmarks/sets/", benchmarks.BenchmarkSets.as_view()),
    path("benchmarks/sets/<int:pk>/items/", benchmarks.BenchmarkItems.as_view()),
    path("benchmarks/sets/<int:pk>/leaderboard/", benchmarks.BenchmarkBoard.as_view()),
    path("benchmarks/runs/", benchmarks.BenchmarkRuns.as_view()),
    path(BENCHMARK_RUN, benchmarks.BenchmarkRunDetail.as_view()),
    path(BENCHMARK_RUN + "figures/", benchmarks.BenchmarkRunFigures.as_view()),
    path(BENCHMARK_RUN + "judgments/", benchmarks.BenchmarkJudgments.as_view()),
    path(BENCHMARK_RUN + "stop/", benchmarks.StopBenchmarkRun.as_view()),
    path(BENCHMARK_RUN + "retry/", benchmarks.RetryBenchmarkRun.as_view()),
    path("judges/runs/", judges.JudgeRuns.as_view()),
    path(JUDGE_RUN, judges.JudgeRunDetail.as_view()),
    path(JUDGE_RUN + "card/", judges.JudgeCard.as_view()),
    path(JUDGE_RUN + "verdicts/", judges.JudgeVerdicts.as_view()),
    path(JUDGE_RUN + "votes/", judges.JudgeVotes.as_view()),
    path(JUDGE_RUN + "stop/", judges.StopJudgeRun.as_view()),
    path(JUDGE_RUN + "retry/", judges.RetryJudgeRun.as_view()),
    path(STUDIES, studies.Studies.as_view()),
    path(STUDIES + "<int:pk>/", studies.StudyDetail.as_view()),
]
