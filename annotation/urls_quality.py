"""Addresses of a project's quality: its figures, its gold items, and what reviewers settle."""

from __future__ import annotations

from django.urls import path

from annotation import views_adjudication, views_quality

urlpatterns = [
    path("projects/<slug:slug>/quality/", views_quality.quality, name="project_quality"),
    path("projects/<slug:slug>/quality/<int:annotator_id>/", views_quality.annotator, name="annotator_quality"),
    path("projects/<slug:slug>/gold/", views_quality.gold, name="project_gold"),
    path("projects/<slug:slug>/gold/promote/", views_quality.promote, name="promote_gold"),
    path("projects/<slug:slug>/gold/<int:gold_id>/change/", views_quality.change_gold, name="change_gold"),
    path("projects/<slug:slug>/adjudicate/", views_adjudication.waiting, name="adjudicate"),
    path("projects/<slug:slug>/adjudicate/look/", views_adjudication.look_again, name="adjudicate_look"),
    path("projects/<slug:slug>/adjudicate/<int:comparison_id>/", views_adjudication.settle, name="settle"),
    path(
        "projects/<slug:slug>/adjudicate/<int:comparison_id>/without/",
        views_adjudication.settle_without_verdict,
        name="settle_without_verdict",
    ),
]
