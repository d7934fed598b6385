"""Models that judge responses in people's stead: what they are asked, their runs, and each thing that they said."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import Comparison, Project, Prompt, Response, ResponseSource
from annotation.models.checks import one_of
from rlhf.models.evaluation import PromptLanguage
from rlhf.models.leased import AskingJob, leased_job_constraints


class JudgeKind(models.TextChoices):
    """How a judge is asked."""

    PAIR = "pair", _("pair comparison")
    ABSOLUTE = "absolute", _("absolute score")
    GOLDEN = "golden", _("score against a golden answer")


class JudgePrompt(models.Model):
    """One wording of what judges are asked; append-only, by a trigger: an edit is a new version."""

    kind = models.CharField(max_length=20, choices=JudgeKind)
    task = models.CharField(max_length=60, blank=True, help_text="Of the prompts that it is for; empty: any other.")
    language = models.CharField(max_length=2, choices=PromptLanguage)
    version = models.PositiveIntegerField()
    text = models.TextField(help_text="With the placeholders that rlhf/judges/wording.py lists.")
    asks_sameness = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Of a pair: also whether both reach the same result, and by the same reasoning.",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+",
        help_text="Empty: it came with the site.",
    )  # fmt: skip
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["version"]
        constraints = [
            models.UniqueConstraint(fields=["kind", "task", "language", "version"], name="judgeprompt_version_once"),
            models.CheckConstraint(condition=one_of("kind", JudgeKind), name="judgeprompt_kind_known"),
            models.CheckConstraint(condition=one_of("language", PromptLanguage), name="judgeprompt_language_known"),
            models.CheckConstraint(condition=Q(version__gte=1), name="judgeprompt_version_positive"),
            models.CheckConstraint(
                condition=Q(kind="pair") | Q(asks_sameness=False), name="judgeprompt_sameness_of_pairs"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.task or 'any task'} {self.language} {self.version}"


class JudgeScope(models.TextChoices):
    """Which comparisons a run is about; scores are about the responses in them."""

    VOTED = "voted", _("what people have judged")
    UNVOTED = "unvoted", _("what nobody has judged")
    ALL = "all", _("everything")
    EVALUATION = "evaluation", _("prompts of an automatic evaluation")


class JudgeRun(AskingJob):
    """A judge's verdicts on a project's comparisons, or scores of the responses in them.

    What it will ask stands in its verdicts from the start, so that nothing leaves the count; whoever takes it up again
    asks what is still open.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    judge = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20, choices=JudgeKind)
    scope = models.CharField(max_length=20, choices=JudgeScope, default=JudgeScope.VOTED)
    language = models.CharField(max_length=2, choices=PromptLanguage, default=PromptLanguage.CHINESE)
    prompt_ids = ArrayField(
        models.BigIntegerField(), help_text="The versions of the prompts in force when it was queued, in order."
    )
    max_tokens = models.PositiveIntegerField(default=1024, validators=[MinValueValidator(1)], help_text="of a verdict")
    attempts = models.PositiveSmallIntegerField(default=3, validators=[MinValueValidator(1), MaxValueValidator(10)])

    class Meta:
        constraints = [
            *leased_job_constraints("judgerun"),
            models.CheckConstraint(condition=one_of("kind", JudgeKind), name="judgerun_kind_known"),
            models.CheckConstraint(condition=one_of("scope", JudgeScope), name="judgerun_scope_known"),
            models.CheckConstraint(condition=one_of("language", PromptLanguage), name="judgerun_language_known"),
            models.CheckConstraint(
                condition=Q(max_tokens__gte=1, parallel__gte=1, attempts__gte=1, attempts__lte=10),
                name="judgerun_limits_positive",
            ),
        ]
        # same_judge: the runs that a card is made of
        indexes = [models.Index(fields=["project", "judge", "kind"], name="judgerun_of_judge")]

    def __str__(self) -> str:
        return f"judge run {self.pk}"

    @property
    def same_judge(self) -> models.QuerySet[JudgeRun]:
        """The runs of the same judge that was asked the same way: what its card is made of."""
        return JudgeRun.objects.filter(
            project=self.project_id, judge=self.judge_id, kind=self.kind, prompt_ids=self.prompt_ids
        )

    @property
    def voter_name(self) -> str:
        """The annotator under whose name its votes are kept."""
        return f"{self.judge.name} ({self.kind} {'.'.join(map(str, self.prompt_ids))})"[:200]


class JudgeOutcome(models.TextChoices):
    """What became of one question to a judge."""

    OPEN = "", _("not asked yet")
    USABLE = "usable", _("usable")
    NOTHING = "nothing", _("nothing was said")
    PROSE = "prose", _("prose instead of JSON")
    HALF_JSON = "half_json", _("JSON that breaks off")
    WRONG_SHAPE = "wrong_shape", _("JSON in another shape")
    INVENTED_KEY = "invented_key", _("an invented key")
    MISSING_KEY = "missing_key", _("a key left out")
    OTHER_WORD = "other_word", _("another word, or another language")
    PARTIAL_CREDIT = "partial_credit", _("a verdict or score between two")
    OFF_SCALE = "off_scale", _("a score outside the scale")
    NO_REASON = "no_reason", _("no reason given")
    REFUSED = "refused", _("the endpoint refused the request")
    UNREADABLE = "unreadable", _("the endpoint sent what cannot be read")


class JudgeVerdict(models.Model):
    """One question to a judge and what came of it: a comparison in one order of its sides, or a response."""

    run = models.ForeignKey(JudgeRun, on_delete=models.CASCADE, related_name="verdicts", db_index=False)
    prompt = models.ForeignKey(JudgePrompt, on_delete=models.PROTECT, related_name="+")
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    is_swapped = models.BooleanField(default=False, db_default=False, help_text="Response b was shown first.")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    reference = models.TextField(blank=True, help_text="The golden answer that was shown.")
    outcome = models.CharField(max_length=20, choices=JudgeOutcome, default=JudgeOutcome.OPEN, blank=True)
    preference = models.CharField(max_length=10, blank=True, help_text="Of a pair, in content order: a, b or tie.")
    score = models.PositiveSmallIntegerField(null=True, blank=True)
    same_result = models.BooleanField(null=True, blank=True)
    same_reasoning = models.BooleanField(null=True, blank=True)
    reason = models.TextField(blank=True)
    note = models.TextField(blank=True, help_text="The failure in words.")
    raw = models.TextField(blank=True, help_text="The last thing that the judge said.")
    tries = models.PositiveSmallIntegerField(default=0)
    seconds = models.FloatField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["run", "comparison", "is_swapped"],
                condition=Q(comparison__isnull=False),
                name="judgeverdict_pair_once_each_way",
            ),
            models.UniqueConstraint(
                fields=["run", "response"], condition=Q(response__isnull=False), name="judgeverdict_response_once"
            ),
            models.CheckConstraint(
                condition=Q(comparison__isnull=False, response__isnull=True)
                | Q(comparison__isnull=True, response__isnull=False, is_swapped=False),
                name="judgeverdict_of_pair_or_response",
            ),
            models.CheckConstraint(
                condition=Q(outcome="") | one_of("outcome", JudgeOutcome), name="judgeverdict_outcome_known"
            ),
            models.CheckConstraint(
                condition=Q(outcome="usable", comparison__isnull=False, preference__in=["a", "b", "tie"], score=None)
                | Q(outcome="usable", response__isnull=False, preference="", score__gte=1, score__lte=10)
                | (~Q(outcome="usable") & Q(preference="", score=None)),
                name="judgeverdict_says_something_where_usable",
            ),
        ]
        indexes = [
            # progress and the list of a run's verdicts by outcome
            models.Index(fields=["run", "outcome", "id"], name="judgeverdict_of_run"),
        ]

    def __str__(self) -> str:
        return f"verdict {self.pk}"

    @property
    def answered_prompt(self) -> Prompt:
        """What the responses answer."""
        answered = self.comparison or self.response
        assert answered is not None  # a constraint
        return answered.prompt
