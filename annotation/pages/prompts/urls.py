"""Addresses of the pages about a project's prompts."""

from __future__ import annotations

from django.urls import include, path

from annotation.pages.prompts import browsing, duplicates, editing, personal_data, uploading

of_a_project = [
    path("", browsing.prompts, name="project_prompts"),
    path("<int:prompt_id>/", browsing.prompt, name="prompt_detail"),
    path("comparisons/", browsing.comparisons, name="project_comparisons"),
    path("edit/", editing.edit, name="prompts_edit"),
    path("undo/", editing.undo, name="prompts_undo"),
    path("work/<int:job_id>/", editing.job, name="data_job"),
    path("work/<int:job_id>/state/", editing.job_state, name="data_job_state"),
    path("work/<int:job_id>/stop/", editing.job_stop, name="data_job_stop"),
    path("add/", uploading.add, name="prompts_add"),
    path("add/lines/", uploading.add_lines, name="prompts_add_lines"),
    path("add/<str:token>/", uploading.look, name="upload"),
    path("add/<str:token>/check/", uploading.check, name="upload_check"),
    path("work/<int:job_id>/import/", uploading.confirm, name="upload_import"),
    path("personal-data/", personal_data.personal_data, name="project_personal_data"),
    path("personal-data/scan/", personal_data.scan, name="personal_data_scan"),
    path("personal-data/mask/", personal_data.mask, name="personal_data_mask"),
    path("duplicates/", duplicates.duplicates, name="project_duplicates"),
    path("duplicates/search/", duplicates.search, name="duplicates_search"),
    path("duplicates/keep/", duplicates.keep, name="duplicates_keep"),
    path("duplicates/keep-oldest/", duplicates.keep_oldest, name="duplicates_keep_oldest"),
]
urlpatterns = [path("projects/<slug:slug>/prompts/", include(of_a_project))]
