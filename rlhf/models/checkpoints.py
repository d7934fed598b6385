"""Models that can be trained from, scored with or published."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import ResponseSource
from annotation.models.checks import one_of
from rlhf import artifacts
from rlhf.jobspec import MANIFEST_FILE
from rlhf.models.training import TrainingJob


class CheckpointKind(models.TextChoices):
    POLICY = "policy", _("writes responses")
    REWARD = "reward", _("scores responses")


class Checkpoint(models.Model):
    """A model directory that can be trained from, scored with or published: trained here, or a base brought in."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=CheckpointKind)
    # Relative to the data folder where it lies inside, so that the folder can be moved.
    directory = models.CharField(max_length=500)
    manifest_sha256 = models.CharField(max_length=64)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    job = models.OneToOneField(TrainingJob, on_delete=models.PROTECT, null=True, blank=True, related_name="checkpoint")
    # Of a model that a job saved on the way, to be evaluated while it went on.
    step_of = models.ForeignKey(
        TrainingJob, on_delete=models.PROTECT, null=True, blank=True, related_name="step_checkpoints"
    )
    step = models.PositiveIntegerField(default=0)
    # Set when it is published: from then on it may write responses that people judge.
    source = models.OneToOneField(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="checkpoint"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", CheckpointKind), name="checkpoint_kind_known"),
            models.CheckConstraint(condition=Q(manifest_sha256__length=64), name="checkpoint_sha256_length"),
            models.CheckConstraint(
                condition=Q(source__isnull=True) | Q(kind="policy"), name="checkpoint_only_policy_published"
            ),
            models.CheckConstraint(
                condition=Q(job__isnull=True) | Q(step_of__isnull=True), name="checkpoint_last_or_on_the_way"
            ),
            models.UniqueConstraint(fields=["step_of", "step"], name="checkpoint_step_once"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def made_by(self) -> TrainingJob | None:
        """The job that trained it, to its end or to a step on the way; None for what was brought in."""
        return self.job or self.step_of

    @property
    def path(self) -> Path:
        """Where its files are; fetched first where machines share no disk and another made it. Raises StorageError."""
        path: Path = settings.DATA_DIR / self.directory
        if not artifacts.is_shared() or (path / MANIFEST_FILE).exists():
            return path
        if Path(self.directory).is_absolute():  # a folder of the machine that brought it in
            path = settings.MODELS_DIR / self.manifest_sha256[:16]
        artifacts.fetch_directory(self.manifest_sha256, path)
        return path
