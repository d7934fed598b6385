"""What is seen of a training run beside its numbers: alarms, samples, the first batch, the best and worst rows."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import one_of
from rlhf.models.training import TrainingJob


class AlarmCode(models.TextChoices):
    """What rlhf/alarms.py raises."""

    NAN = "nan", _("not a number")
    ZERO_LOSS = "zero_loss", _("loss is exactly 0")
    KL_NEGATIVE = "kl_negative", _("KL below 0")
    KL_HIGH = "kl_high", _("KL above 10")
    CHOSEN_COLLAPSE = "chosen_collapse", _("the chosen side collapses")
    ALL_CUT = "all_cut", _("every completion is cut")
    STALLED = "stalled", _("no sign of life for too long")
    REWARD_LENGTH = "reward_length", _("reward rises with length")
    EVAL_LOSS_RISES = "eval_loss_rises", _("held-out loss rises")
    RESUME_SUSPECT = "resume_suspect", _("resume suspect")


class JobAlarm(models.Model):
    """Something in a run that somebody should look at; stored once, when it was first seen."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="alarms")
    code = models.CharField(max_length=20, choices=AlarmCode)
    step = models.PositiveIntegerField()
    value = models.FloatField(null=True, blank=True)
    raised_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["step", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["job", "code"], name="jobalarm_once"),
            models.CheckConstraint(condition=one_of("code", AlarmCode), name="jobalarm_code_known"),
        ]

    def __str__(self) -> str:
        return f"{self.code} at step {self.step}"


class InsightKind(models.TextChoices):
    """The kinds of line in insights.jsonl (rlhf/jobspec.py)."""

    HARDWARE = "hardware", _("what it runs on")
    FIRST_BATCH = "first_batch", _("the first batch")
    SAMPLES = "samples", _("the fixed prompts and what was written to them")
    EXTREMES = "extremes", _("the best and the worst held-out rows")


class JobInsight(models.Model):
    """What the training process showed at one step; a retry from a checkpoint shows a step anew."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="insights")
    kind = models.CharField(max_length=20, choices=InsightKind)
    step = models.PositiveIntegerField()
    values = models.JSONField()
    shown_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "kind", "step"], name="jobinsight_step_once"),
            models.CheckConstraint(condition=one_of("kind", InsightKind), name="jobinsight_kind_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}"
