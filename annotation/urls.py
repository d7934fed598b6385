"""Addresses for people who judge, and of the pages about a project."""

from __future__ import annotations

from django.urls import include, path

from annotation.pages import asides, compare, rate, rewrite

urlpatterns = [
    # First, because nothing is asked for as often.
    path("assignments/<uuid:assignment_id>/judgment", compare.judge, name="judge"),
    path("", include("annotation.pages.urls")),
    path("", include("annotation.conversations.urls")),
    path("", include("annotation.pages.prompts.urls")),
    path("projects/<slug:slug>/compare/", compare.compare, name="compare"),
    path("projects/<slug:slug>/lease", compare.renew_lease, name="renew_lease"),
    path("projects/<slug:slug>/compare/guidelines", asides.guidelines_text, name="guidelines_text"),
    path("projects/<slug:slug>/rewrite/", rewrite.rewrite, name="rewrite"),
    path("projects/<slug:slug>/rewrite/closed/", rewrite.closed, name="rewrites_closed"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/reopen", rewrite.reopen, name="rewrite_reopen"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/save", rewrite.save, name="rewrite_save"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/drop", rewrite.drop, name="rewrite_drop"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/give-back", rewrite.give_back, name="rewrite_give_back"),
    path("projects/<slug:slug>/rewrite/<int:task_id>/lease", rewrite.renew, name="rewrite_renew"),
    path("projects/<slug:slug>/rate/", rate.rate, name="rate"),
    path("projects/<slug:slug>/rate/<uuid:rating_id>/save", rate.save, name="rate_save"),
    path("projects/<slug:slug>/rate/<uuid:rating_id>/skip", rate.skip, name="rate_skip"),
    path("projects/<slug:slug>/rate/<uuid:rating_id>/lease", rate.renew, name="rate_renew"),
    path("assignments/<uuid:assignment_id>/text/<int:position>", asides.response_text, name="response_text"),
    path("assignments/<uuid:assignment_id>/flag", asides.flag, name="flag"),
    path("assignments/<uuid:assignment_id>/skip", compare.skip, name="skip"),
    path("assignments/<uuid:assignment_id>/undo", compare.undo, name="undo"),
]
