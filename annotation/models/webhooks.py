"""Addresses outside that are told what happens. Signing secrets are derived from the site's key, never stored."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of, string_list
from annotation.models.projects import Project


class Webhook(models.Model):
    """An address that gets a signed POST for each of the named events of a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    url = models.URLField(max_length=500)
    events = string_list(help_text="Event kinds; empty means every kind that webhooks offer.")
    is_active = models.BooleanField(default=True)
    removed_at = models.DateTimeField(null=True, blank=True, help_text="Shown nowhere any more; can be brought back.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.url


class DeliveryStatus(models.TextChoices):
    WAITING = "waiting", _("waiting")
    """To be sent at next_attempt_at."""
    DELIVERED = "delivered", _("delivered")
    """Answered with 2xx."""
    GIVEN_UP = "given_up", _("given up")
    """Every attempt failed."""


class WebhookDelivery(models.Model):
    """One event on its way to one address, with every attempt counted."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event_id = models.BigIntegerField()
    payload = json_object()
    status = models.CharField(max_length=20, choices=DeliveryStatus, default=DeliveryStatus.WAITING)
    attempt_count = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    last_status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("status", DeliveryStatus), name="webhookdelivery_status_known"),
            models.UniqueConstraint(fields=["webhook", "event_id"], name="webhookdelivery_once"),
        ]
        indexes = [
            # what is due
            models.Index(fields=["next_attempt_at"], condition=Q(status="waiting"), name="webhookdelivery_due"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}"
