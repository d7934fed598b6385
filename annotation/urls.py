"""Addresses for people who judge."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.urls import path

from annotation import views

urlpatterns = [
    path("", views.home, name="home"),
    path("login/", LoginView.as_view(template_name="login.html", redirect_authenticated_user=True), name="login"),
    path("logout/", views.sign_out, name="logout"),
    path("projects/<slug:slug>/compare/", views.compare, name="compare"),
    path("projects/<slug:slug>/lease", views.renew_lease, name="renew_lease"),
    path("assignments/<uuid:assignment_id>/judgment", views.judge, name="judge"),
    path("assignments/<uuid:assignment_id>/skip", views.skip, name="skip"),
    path("assignments/<uuid:assignment_id>/undo", views.undo, name="undo"),
]
