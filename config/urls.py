"""Addresses of the whole site."""

from django.contrib import admin
from django.urls import include, path

from config.health import healthz

urlpatterns = [
    path("healthz", healthz),
    path("django-admin/", admin.site.urls),
    path("", include("annotation.urls")),
    path("", include("rlhf.urls")),
]
