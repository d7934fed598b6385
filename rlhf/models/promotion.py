"""What must be shown before an alias may move."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import Project
from annotation.models.checks import one_of
from rlhf.models.evaluation import BenchmarkSet


class Voters(models.TextChoices):
    """Whose verdicts a gate counts."""

    PEOPLE = "people", _("people")
    JUDGES = "judges", _("judge models")
    ALL = "all", _("people and judge models")


class PromotionGate(models.Model):
    """Thresholds for moving one alias, in a project or on the whole site. What is empty is not asked for.

    Each is held against the checkpoint that the alias stands for (rlhf/promotion.py); a reward model has neither votes
    nor answers, so of such an alias only the accuracy is asked.
    """

    alias = models.SlugField(max_length=60)
    project = models.ForeignKey(
        Project,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="promotion_gates",
        help_text="Empty: all.",
    )
    least_win_rate = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="The lower end of the 95 % interval must lie above it.",
    )
    voters = models.CharField(max_length=10, choices=Voters, default=Voters.PEOPLE)
    hold_length_equal = models.BooleanField(
        default=False, db_default=False, help_text="The win rate is that of responses of one length."
    )
    least_votes = models.PositiveIntegerField(default=200, validators=[MinValueValidator(1)])
    least_people = models.PositiveIntegerField(default=3, validators=[MinValueValidator(1)])
    benchmark = models.ForeignKey(BenchmarkSet, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    most_benchmark_drop = models.FloatField(
        default=1.0, validators=[MinValueValidator(0.0), MaxValueValidator(100.0)], help_text="Points of 100."
    )
    least_reward_accuracy = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)]
    )
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["alias", "project__name"]
        constraints = [
            models.UniqueConstraint(fields=["alias", "project"], nulls_distinct=False, name="promotiongate_once"),
            models.CheckConstraint(condition=one_of("voters", Voters), name="promotiongate_voters_known"),
            models.CheckConstraint(
                condition=Q(least_votes__gte=1, least_people__gte=1, most_benchmark_drop__gte=0)
                & (Q(least_win_rate=None) | Q(least_win_rate__gte=0, least_win_rate__lte=1))
                & (Q(least_reward_accuracy=None) | Q(least_reward_accuracy__gte=0, least_reward_accuracy__lte=1)),
                name="promotiongate_thresholds_possible",
            ),
            models.CheckConstraint(
                condition=Q(least_win_rate__isnull=False)
                | Q(benchmark__isnull=False)
                | Q(least_reward_accuracy__isnull=False),
                name="promotiongate_asks_something",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project.slug}/{self.alias}" if self.project else self.alias
