"""Figures that are too dear to compute for every visit."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from annotation.models.checks import json_object
from annotation.models.projects import Project


class StoredFigures(models.Model):
    """One set of a project's figures as of a time; a page that shows it shows the time as well."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=40)
    data = json_object()
    seconds = models.FloatField(help_text="What computing them took.")
    computed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="storedfigures_once")]

    def __str__(self) -> str:
        return f"{self.name} of {self.project_id}"
