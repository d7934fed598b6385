"""Addresses of the whole site."""

from django.contrib import admin
from django.urls import include, path
from django.views.i18n import set_language

from annotation.sign_in import admin_sign_in
from config.health import healthz

urlpatterns = [
    path("healthz", healthz),
    path("django-admin/login/", admin_sign_in),
    path("django-admin/", admin.site.urls),
    path("language/", set_language, name="set_language"),
    path("api/", include("annotation.api.urls")),
    path("api/v1/", include("rlhf.api.urls")),
    path("", include("annotation.urls")),
    path("", include("rlhf.urls")),
]
