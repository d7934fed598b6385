"""Addresses for staff."""

from __future__ import annotations

from django.urls import path

from rlhf.api import JobMetricsView
from rlhf.views import (
    aliases,
    checkpoints,
    job_controls,
    job_figures,
    jobs,
    launch,
    merging,
    projects,
    snapshots,
    workers,
)

urlpatterns = [
    path("projects/", projects.project_list, name="project_list"),
    path("projects/<slug:slug>/", projects.project_detail, name="project_detail"),
    path("projects/<slug:slug>/strip/", projects.project_strip, name="project_strip"),
    path("projects/<slug:slug>/generate/", projects.project_generate, name="project_generate"),
    path("projects/<slug:slug>/generate/jobs/", projects.generation_rows, name="generation_rows"),
    path("projects/<slug:slug>/generate/<int:job_id>/cancel/", projects.cancel_generation, name="cancel_generation"),
    path("projects/<slug:slug>/export/<slug:kind>.<slug:suffix>", projects.project_export, name="project_export"),
    path("data-sets/", snapshots.snapshot_list, name="snapshot_list"),
    path("data-sets/<int:pk>/", snapshots.snapshot_detail, name="snapshot_detail"),
    path("training/", jobs.job_list, name="job_list"),
    path("training/rows/", jobs.job_rows, name="job_rows"),
    path("training/workers/", workers.worker_list, name="worker_list"),
    path("training/new/", launch.job_new, name="job_new"),
    path("training/checks/<int:pk>/", launch.launch_check, name="launch_check"),
    path("training/checks/<int:pk>/found/", launch.launch_found, name="launch_found"),
    path("training/checks/<int:pk>/config.<slug:suffix>", launch.check_config, name="check_config"),
    path("training/<int:pk>/config.<slug:suffix>", launch.job_config, name="job_config"),
    path("training/<int:pk>/", jobs.job_detail, name="job_detail"),
    path("training/<int:pk>/progress/", jobs.job_progress, name="job_progress"),
    path("training/<int:pk>/curves/", job_figures.job_curves, name="job_curves"),
    path("training/<int:pk>/log/", jobs.job_log, name="job_log"),
    path("training/<int:pk>/stop/", jobs.job_stop, name="job_stop"),
    path("training/<int:pk>/pause/", job_controls.job_pause, name="job_pause"),
    path("training/<int:pk>/resume/", job_controls.job_resume, name="job_resume"),
    path("training/<int:pk>/retry/", job_controls.job_retry, name="job_retry"),
    path("checkpoints/", checkpoints.checkpoint_list, name="checkpoint_list"),
    path("checkpoints/merge/", merging.merge_new, name="merge_new"),
    path("checkpoints/aliases/", aliases.alias_list, name="alias_list"),
    path("checkpoints/aliases/back/", aliases.alias_back, name="alias_back"),
    path("checkpoints/<int:pk>/", checkpoints.checkpoint_detail, name="checkpoint_detail"),
    path("checkpoints/<int:pk>/publish/", checkpoints.checkpoint_publish, name="checkpoint_publish"),
    path("checkpoints/<int:pk>/card/", checkpoints.checkpoint_card, name="checkpoint_card"),
    path("checkpoints/<int:pk>/card.md", checkpoints.checkpoint_card_file, name="checkpoint_card_file"),
    path("checkpoints/<int:pk>/model.tar", checkpoints.checkpoint_download, name="checkpoint_download"),
    path("checkpoints/<int:pk>/alias/", aliases.checkpoint_alias, name="checkpoint_alias"),
    path("api/jobs/<int:pk>/metrics", JobMetricsView.as_view(), name="job_metrics"),
]
