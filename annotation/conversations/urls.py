"""Addresses of conversations."""

from __future__ import annotations

from django.urls import path

from annotation.conversations import rating, views

urlpatterns = [
    path("projects/<slug:slug>/converse/", views.converse, name="converse"),
    path("projects/<slug:slug>/converse/models/", views.sources, name="conversation_sources"),
    path("projects/<slug:slug>/converse/rate", rating.take, name="conversation_take"),
    path("conversations/<uuid:conversation_id>/", views.conversation, name="conversation"),
    path("conversations/<uuid:conversation_id>/stream", views.stream, name="conversation_stream"),
    path("conversations/<uuid:conversation_id>/pick", views.pick, name="conversation_pick"),
    path("conversations/<uuid:conversation_id>/retry", views.retry, name="conversation_retry"),
    path("conversations/<uuid:conversation_id>/keep", views.keep, name="conversation_keep"),
    path("conversations/<uuid:conversation_id>/feedback", views.feedback, name="conversation_feedback"),
    path("conversations/<uuid:conversation_id>/end", views.end, name="conversation_end"),
    path("conversations/<uuid:conversation_id>/reopen", views.reopen, name="conversation_reopen"),
    path("conversations/<uuid:conversation_id>/rate/", rating.rate, name="conversation_rate"),
    path("conversations/<uuid:conversation_id>/give-back", rating.give_back, name="conversation_give_back"),
]
