"""Benchmarks here: data sets, runs of a model over them, and what judges and people tick.

One family of tables serves FB-Bench, CFBench and SysBench: an item is what is answered and judged at a time. The names
of FB-Bench's scenarios, deficiencies and kinds of feedback are those of the conversations that people have here.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.models import Annotator, DeficiencyType, FeedbackType, Project, ResponseSource, Scenario
from annotation.models.checks import json_object, one_of, string_list
from rlhf.evaluation import fb_bench
from rlhf.evaluation.constraint_sets import Exercise
from rlhf.models.leased import AskingJob, leased_job_constraints


def key_of(label: str) -> str:
    """What the database calls a label of FB-Bench: `not_following_instructions`."""
    return label.lower().replace(" ", "_")


def label_of(key: str) -> str:
    """FB-Bench's label: `Not Following Instructions`."""
    return key.replace("_", " ").title()


class Benchmark(models.TextChoices):
    FB_BENCH = "fb_bench", "FB-Bench"
    CFBENCH = "cfbench", "CFBench"
    SYSBENCH = "sysbench", "SysBench"


class BenchmarkSet(models.Model):
    """A version of a data set: the items of one file, or those that grow out of a project's conversations."""

    kind = models.CharField(
        max_length=20, choices=Benchmark, default=Benchmark.FB_BENCH, db_default=Benchmark.FB_BENCH.value
    )
    name = models.CharField(max_length=200, unique=True)
    sha256 = models.CharField(max_length=64, blank=True, help_text="Of the imported file; empty where items grow.")
    project = models.ForeignKey(
        Project,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whose talks it grows of.",
    )
    ticked_in = models.ForeignKey(
        Project,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whose people tick the answers; empty where only staff does.",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sha256"], condition=~Q(sha256=""), name="benchmarkset_file_once"),
            models.CheckConstraint(condition=Q(sha256="") | Q(sha256__length=64), name="benchmarkset_sha256_length"),
            models.CheckConstraint(condition=one_of("kind", Benchmark), name="benchmarkset_kind_known"),
        ]

    def __str__(self) -> str:
        return self.name


class BenchmarkItemQuerySet(models.QuerySet["BenchmarkItem"]):
    def kept(self) -> BenchmarkItemQuerySet:
        """Those that runs are about."""
        return self.filter(dropped_at=None)

    def with_checklist(self) -> BenchmarkItemQuerySet:
        """With the newest checklist: `criteria`, `checklist_id` and `checklist_version`."""
        newest = Checklist.objects.filter(item=OuterRef("pk")).order_by("-version")[:1]
        return self.annotate(
            criteria=Subquery(newest.values("criteria")),
            checklist_id=Subquery(newest.values("pk")),
            checklist_version=Subquery(newest.values("version")),
        )


class BenchmarkItem(models.Model):
    """What is answered and judged at a time.

    FB-Bench: a question, its fixed first answer and a person's feedback; models write the second answer. CFBench: an
    instruction, with `task` its domain and `sub_task` its scenario. SysBench: a turn of a session.
    """

    data_set = models.ForeignKey(BenchmarkSet, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField(help_text="1, 2, … in the file")
    key = models.CharField(max_length=64, help_text="sha256 of the query, or of what else makes it one")
    scenario = models.CharField(max_length=30, choices=Scenario, blank=True, help_text="FB-Bench's only.")
    task = models.CharField(max_length=200, blank=True)
    sub_task = models.CharField(max_length=200, blank=True)
    query = models.TextField()
    first_response = models.TextField(blank=True)
    feedback = models.TextField(blank=True)
    session = models.PositiveIntegerField(null=True, blank=True, help_text="SysBench: 1, 2, … in the file")
    turn = models.PositiveSmallIntegerField(null=True, blank=True, help_text="1, 2, … in its session")
    details = json_object(help_text="What else the authors' row says.")
    deficiency_types = string_list()
    feedback_types = string_list()
    dropped_at = models.DateTimeField(null=True, blank=True, help_text="Too easy: every model solved it.")
    reference = models.TextField(null=True, blank=True, help_text="A good second answer; judges never see it.")  # noqa: DJ001

    objects = BenchmarkItemQuerySet.as_manager()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["data_set", "key"], name="benchmarkitem_once"),
            models.UniqueConstraint(fields=["data_set", "position"], name="benchmarkitem_position_once"),
            models.UniqueConstraint(fields=["data_set", "session", "turn"], name="benchmarkitem_turn_once"),
            models.CheckConstraint(
                condition=Q(scenario="") | (one_of("scenario", Scenario) & ~Q(first_response="") & ~Q(feedback="")),
                name="benchmarkitem_scenario_known",
            ),
            models.CheckConstraint(
                condition=Q(session__isnull=True, turn__isnull=True) | Q(session__gte=1, turn__gte=1),
                name="benchmarkitem_turn_of_session",
            ),
            models.CheckConstraint(condition=Q(key__length=64), name="benchmarkitem_key_length"),
            models.CheckConstraint(
                condition=Q(deficiency_types__contained_by=DeficiencyType.values)
                & (Q(scenario="error_correction") | Q(deficiency_types=[])),
                name="benchmarkitem_deficiencies_known",
            ),
            models.CheckConstraint(
                condition=Q(feedback_types__contained_by=FeedbackType.values), name="benchmarkitem_feedback_known"
            ),
        ]

    def __str__(self) -> str:
        return f"item {self.position}"

    def as_item(self, criteria: list[list] | None = None) -> fb_bench.Item:
        """With these criteria, or those that `with_checklist` added."""
        if criteria is None:
            criteria = getattr(self, "criteria", None) or []
        return fb_bench.Item(
            scenario=fb_bench.Scenario(label_of(self.scenario)),
            task=self.task,
            sub_task=self.sub_task,
            query=self.query,
            first_response=self.first_response,
            feedback=self.feedback,
            deficiencies=tuple(map(label_of, self.deficiency_types)),
            feedback_types=tuple(map(label_of, self.feedback_types)),
            checklist=tuple(fb_bench.Criterion(text, weight) for text, weight in criteria),
            reference=self.reference,
        )

    def as_exercise(self, criteria: list[list] | None = None) -> Exercise:
        """An item of CFBench or SysBench, likewise."""
        return Exercise(
            key=self.key,
            query=self.query,
            criteria=(getattr(self, "criteria", None) or []) if criteria is None else criteria,
            task=self.task,
            sub_task=self.sub_task,
            reference=self.reference or "",
            details=self.details,
            session=self.session,
            turn=self.turn,
        )


class Checklist(models.Model):
    """What an answer is judged by. A change is a new version; judgments keep the version that they used."""

    item = models.ForeignKey(BenchmarkItem, on_delete=models.CASCADE, related_name="checklists")
    version = models.PositiveIntegerField(default=1)
    criteria = models.JSONField(help_text="[[text, weight or null] …], or [[text, kind, …] …]")
    drafted_by = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["version"]
        constraints = [models.UniqueConstraint(fields=["item", "version"], name="checklist_version_once")]

    def __str__(self) -> str:
        return f"checklist {self.version} of item {self.item_id}"

    @property
    def as_criteria(self) -> tuple[fb_bench.Criterion, ...]:
        """FB-Bench's."""
        return tuple(fb_bench.Criterion(text, weight) for text, weight in self.criteria)

    def score(self, met: Sequence[bool]) -> float:
        """0 … 1: FB-Bench's score of an item, or the share of constraints that are satisfied."""
        if isinstance(self.criteria[0][1], str):
            return sum(met) / len(met)
        return fb_bench.item_score(self.as_criteria, met)


class PromptLanguage(models.TextChoices):
    CHINESE = "zh", _("Chinese")
    ENGLISH = "en", _("English")


DEFAULT_MAX_TOKENS = 4096
"""Of an answer, wherever a run comes from: with another cap it compares with no earlier run."""


class BenchmarkRun(AskingJob):
    """A source's answers to a data set, and one judge's ticks on them.

    Idempotent by (run, item) for answers and judgments: whoever takes it up again fills what is missing.
    """

    data_set = models.ForeignKey(BenchmarkSet, on_delete=models.PROTECT, related_name="runs")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+")
    judge = models.ForeignKey(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+",
        help_text="Empty where there are only answers.",
    )  # fmt: skip
    answers_from = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="judged_again",
        help_text="The run whose answers another judge ticks here.",
    )  # fmt: skip
    is_imported = models.BooleanField(default=False, db_default=False)
    prompt_language = models.CharField(max_length=2, choices=PromptLanguage, default=PromptLanguage.CHINESE)
    max_tokens = models.PositiveIntegerField(
        default=DEFAULT_MAX_TOKENS, validators=[MinValueValidator(1)], help_text="of an answer"
    )
    judge_max_tokens = models.PositiveIntegerField(
        default=4096, validators=[MinValueValidator(1)], help_text="of a judgment"
    )
    judge_attempts = models.PositiveSmallIntegerField(
        default=3, validators=[MinValueValidator(1), MaxValueValidator(10)]
    )

    class Meta:
        constraints = [
            *leased_job_constraints("benchmarkrun"),
            models.CheckConstraint(
                condition=one_of("prompt_language", PromptLanguage), name="benchmarkrun_language_known"
            ),
            models.CheckConstraint(
                condition=Q(max_tokens__gte=1, judge_max_tokens__gte=1, parallel__gte=1)
                & Q(judge_attempts__gte=1, judge_attempts__lte=10),
                name="benchmarkrun_limits_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk}"

    @property
    def answering_run_id(self) -> int:
        """The run that holds the answers."""
        return self.answers_from_id or self.pk

    @property
    def conditions(self) -> tuple[int | None, str, int | None]:
        """Judge, language of its prompt and token cap of the answers: figures of two runs compare only if all agree.

        Of what was imported the last two are unknown, and alike for all that was.
        """
        answering = self.answers_from or self
        return (
            self.judge_id,
            "" if self.is_imported else self.prompt_language,
            None if answering.is_imported else answering.max_tokens,
        )

    @property
    def conditions_shown(self) -> str:
        """The language and the cap of `conditions`."""
        _judge, language, tokens = self.conditions
        asked = gettext("imported judgments")
        if language:
            asked = gettext("asked in %(language)s") % {"language": self.get_prompt_language_display()}
        cap = gettext("answers of at most %(tokens)s tokens") % {"tokens": tokens} if tokens else ""
        return ", ".join(filter(None, [asked, cap or (gettext("imported answers") if language else "")]))


class BenchmarkAnswer(models.Model):
    """The answer to an item, or why there is none."""

    run = models.ForeignKey(BenchmarkRun, on_delete=models.CASCADE, related_name="answers")
    item = models.ForeignKey(BenchmarkItem, on_delete=models.PROTECT, related_name="answers")
    text = models.TextField(blank=True)
    error = models.TextField(blank=True, help_text="Why the model gave no answer.")
    finish_reason = models.CharField(max_length=20, blank=True)
    sampling = json_object(help_text="temperature, max_tokens, seed as sent")
    seconds = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "item"], name="benchmarkanswer_once"),
            models.CheckConstraint(condition=Q(error="") | Q(text=""), name="benchmarkanswer_text_or_error"),
        ]

    def __str__(self) -> str:
        return f"answer {self.pk}"


class JudgmentFailure(models.TextChoices):
    """Why a judge's answer gives no score."""

    NOTHING = "nothing", _("nothing was said")
    PROSE = "prose", _("prose instead of JSON")
    HALF_JSON = "half_json", _("JSON that breaks off")
    WRONG_SHAPE = "wrong_shape", _("JSON in another shape")
    INVENTED_CRITERION = "invented_criterion", _("an invented criterion")
    MISSING_CRITERION = "missing_criterion", _("a criterion left out")
    PARTIAL_CREDIT = "partial_credit", _("partial credit")
    OTHER_WORD = "other_word", _("neither yes nor no, or another language")
    NO_REASON = "no_reason", _("no reason given")
    WEIGHT = "weight", _("an impossible weight")
    REFUSED = "refused", _("the endpoint refused the request")
    UNREADABLE = "unreadable", _("the endpoint sent what cannot be read")
    NO_ANSWER = "no_answer", _("there was no answer to judge")


class BenchmarkJudgment(models.Model):
    """A judge's ticks on an answer, or the failure that its tries ended in."""

    run = models.ForeignKey(BenchmarkRun, on_delete=models.CASCADE, related_name="judgments")
    item = models.ForeignKey(BenchmarkItem, on_delete=models.PROTECT, related_name="judgments")
    answer = models.ForeignKey(BenchmarkAnswer, on_delete=models.PROTECT, related_name="judgments")
    checklist = models.ForeignKey(Checklist, on_delete=models.PROTECT, related_name="judgments")
    met = ArrayField(
        models.BooleanField(), default=list, blank=True, help_text="By criterion, in the checklist's order."
    )
    reasons = ArrayField(models.TextField(), default=list, blank=True)
    score = models.FloatField(null=True, blank=True)
    is_repetitive = models.BooleanField(
        default=False, db_default=False, help_text="The endpoint refused the answer for its repetitions: score 0."
    )
    is_lenient = models.BooleanField(
        default=False,
        db_default=False,
        help_text="An imported CFBench row read line by line: its bits are in no order.",
    )
    failure = models.CharField(max_length=30, choices=JudgmentFailure, blank=True)
    note = models.TextField(blank=True, help_text="The failure in words.")
    raw = models.TextField(blank=True, help_text="The last thing that the judge said.")
    attempts = models.PositiveSmallIntegerField(default=1)
    seconds = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "item"], name="benchmarkjudgment_once"),
            models.CheckConstraint(
                condition=Q(failure="", score__gte=0, score__lte=1) | (~Q(failure="") & Q(score__isnull=True, met=[])),
                name="benchmarkjudgment_score_or_failure",
            ),
            models.CheckConstraint(
                condition=Q(failure="") | one_of("failure", JudgmentFailure), name="benchmarkjudgment_failure_known"
            ),
        ]

    def __str__(self) -> str:
        return f"judgment {self.pk}"


class BenchmarkTicksQuerySet(models.QuerySet["BenchmarkTicks"]):
    def by_newest_checklist(self) -> BenchmarkTicksQuerySet:
        """Those by the version that is in force: an answer whose checklist changed is to be ticked again."""
        newest = Checklist.objects.filter(item=OuterRef("answer__item")).order_by("-version").values("pk")[:1]
        return self.filter(checklist=Subquery(newest))


class BenchmarkTicks(models.Model):
    """A person's ticks on an answer, given without knowing which model wrote it."""

    answer = models.ForeignKey(BenchmarkAnswer, on_delete=models.PROTECT, related_name="ticks")
    checklist = models.ForeignKey(Checklist, on_delete=models.PROTECT, related_name="ticks")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="+")
    met = ArrayField(models.BooleanField())
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = BenchmarkTicksQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["answer", "annotator", "checklist"], name="benchmarkticks_once")
        ]

    def __str__(self) -> str:
        return f"ticks {self.pk}"
