"""Addresses for people who judge."""

from __future__ import annotations

from django.urls import include, path

from annotation import asides, rewrite_views, views

urlpatterns = [
    # First, because nothing is asked for as often.
    path("assignments/<uuid:assignment_id>/judgment", views.judge, name="judge"),
    path("", include("annotation.pages.urls")),
    path("", include("annotation.conversations.urls")),
    path("", include("annotation.urls_quality")),
    path("", include("annotation.prompt_pages.urls")),
    path("projects/<slug:slug>/compare/", views.compare, name="compare"),
    path("projects/<slug:slug>/lease", views.renew_lease, name="renew_lease"),
    path("projects/<slug:slug>/compare/guidelines", asides.guidelines_text, name="guidelines_text"),
    path("projects/<slug:slug>/rewrite/", rewrite_views.rewrite, name="rewrite"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/save", rewrite_views.save, name="rewrite_save"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/drop", rewrite_views.drop, name="rewrite_drop"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/give-back", rewrite_views.give_back, name="rewrite_give_back"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/lease", rewrite_views.renew, name="rewrite_renew"),
    path("assignments/<uuid:assignment_id>/text/<int:position>", asides.response_text, name="response_text"),
    path("assignments/<uuid:assignment_id>/flag", asides.flag, name="flag"),
    path("assignments/<uuid:assignment_id>/skip", views.skip, name="skip"),
    path("assignments/<uuid:assignment_id>/undo", views.undo, name="undo"),
]
