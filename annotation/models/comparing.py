"""Comparisons, leases on them, and judgments.

Rules that must hold are constraints here, so that Postgres refuses the bad row whoever writes it. Every write goes
through `annotation.services`.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of, string_list
from annotation.models.projects import Batch, Project
from annotation.models.texts import Prompt, Response


class QueueTier(models.IntegerChoices):
    """What is handed out first; gold items come before all, by their own count."""

    PARTLY_JUDGED = 0, "judged by some, not yet by all"
    UNCERTAIN = 1, "a reward model cannot tell the responses apart"
    NEW = 2, "judged by nobody"


# Whether a comparison is handed out.
IS_OPEN = Q(assigned_count__lt=F("required_count"), is_gold=False, is_withdrawn=False)


class Comparison(models.Model):
    """Two responses to one prompt, or up to nine to rank, waiting for or holding judgments.

    Content order is (a, b, then FurtherResponse by position); display order is drawn for each person.

    That all responses answer `prompt` is checked in `services.create_comparisons` and its test: a foreign key
    cannot say it without repeating the prompt in a composite key.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="comparisons")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="comparisons")
    # No indexes: who looks for the comparisons of a response goes by the prompt, which is the same.
    response_a = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+", db_index=False)
    response_b = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+", db_index=False)
    external_id = models.CharField(max_length=200, blank=True, help_text="The id in the imported file.")
    meta = models.JSONField(default=dict, blank=True)
    response_count = models.PositiveSmallIntegerField(default=2, db_default=2, help_text="3 to 9: a ranking.")
    batch = models.ForeignKey(
        Batch, on_delete=models.PROTECT, null=True, blank=True, related_name="comparisons", db_index=False
    )
    # Copies of the prompt's and the responses', for routing without a join.
    lang = models.CharField(max_length=20, blank=True, db_default="")
    skill = models.CharField(max_length=60, blank=True, db_default="")
    written_by = ArrayField(
        models.BigIntegerField(),
        null=True,
        blank=True,
        help_text="Annotators who wrote one of the responses and never judge it; empty: nobody here.",
    )
    is_gold = models.BooleanField(default=False, db_default=False, help_text="Has a live Gold row.")
    is_withdrawn = models.BooleanField(default=False, db_default=False, help_text="Handed out no more; kept.")
    withdrawn_with_prompt = models.BooleanField(
        default=False, db_default=False, help_text="Comes back when its prompt leaves the archive."
    )
    sampling_probability = models.FloatField(
        null=True, blank=True, help_text="With which this pair of sources was drawn for its prompt; empty: not known."
    )
    uncertainty = models.FloatField(null=True, blank=True, help_text="1 − 2·|p − ½| of a reward model, 0 … 1.")
    tier = models.PositiveSmallIntegerField(choices=QueueTier, default=QueueTier.NEW, db_default=QueueTier.NEW)
    required_count = models.PositiveSmallIntegerField(default=1)
    # How many assignments hold a place. Kept on the locked row because a count subquery over-assigns under
    # concurrency; changed only together with Assignment.holds_place, in services.py.
    assigned_count = models.PositiveSmallIntegerField(default=0)
    review_since = models.DateTimeField(
        null=True, blank=True, help_text="Waits for a reviewer: the votes disagree, or people flagged or skipped it."
    )
    reviewed_at = models.DateTimeField(
        null=True, blank=True, help_text="When a reviewer last dealt with it; older votes and skips ask for nothing."
    )
    # Spreads the queue over prompts and batches; drawn once, so that the order can be replayed.
    queue_key = models.FloatField(default=0.0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(response_a=F("response_b")), name="comparison_responses_differ"),
            models.CheckConstraint(
                condition=Q(assigned_count__lte=F("required_count")), name="comparison_not_over_assigned"
            ),
            models.CheckConstraint(
                condition=Q(response_count__gte=2, response_count__lte=9), name="comparison_response_count_known"
            ),
            models.CheckConstraint(condition=Q(tier__in=QueueTier.values), name="comparison_tier_known"),
            models.CheckConstraint(
                condition=Q(sampling_probability__gt=0, sampling_probability__lte=1)
                | Q(sampling_probability__isnull=True),
                name="comparison_sampling_probability_range",
            ),
            models.UniqueConstraint(
                fields=["response_a", "response_b"], condition=Q(external_id=""), name="comparison_pair_once"
            ),
            models.UniqueConstraint(
                fields=["project", "external_id"], condition=~Q(external_id=""), name="comparison_external_id_once"
            ),
        ]
        indexes = [
            # services.claim_assignments: the next comparison that still has room, for those who judge everything
            models.Index(
                "project",
                "tier",
                "queue_key",
                "id",
                condition=IS_OPEN,
                name="comparison_open",
            ),
            # … and for those to whom only some languages or skills are routed
            models.Index(
                "project",
                "lang",
                "skill",
                "tier",
                "queue_key",
                "id",
                condition=IS_OPEN,
                name="comparison_route",
            ),
            # the adjudication page, newest first
            models.Index(
                fields=["project", "-review_since", "-id"],
                condition=Q(review_since__isnull=False),
                name="comparison_review",
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.pk}"


class FurtherResponse(models.Model):
    """The third to ninth response of a comparison that asks for a ranking."""

    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="further_responses")
    position = models.PositiveSmallIntegerField(help_text="2 … 8; response_a is 0 and response_b is 1.")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["comparison", "position"], name="furtherresponse_position_once"),
            models.UniqueConstraint(fields=["comparison", "response"], name="furtherresponse_response_once"),
            models.CheckConstraint(
                condition=Q(position__gte=2, position__lte=8), name="furtherresponse_position_known"
            ),
        ]

    def __str__(self) -> str:
        return f"response {self.position} of {self.comparison_id}"


class Annotator(models.Model):
    """Somebody who judges: a user of this site, or a name that imported data gives (a person or a model)."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="annotator"
    )
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    name = models.CharField(max_length=200)
    is_human = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, project__isnull=True) | Q(user__isnull=True, project__isnull=False),
                name="annotator_is_user_or_imported",
            ),
            models.UniqueConstraint(
                fields=["project", "name"], condition=Q(project__isnull=False), name="annotator_name_once_per_project"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AssignmentStatus(models.TextChoices):
    LEASED = "leased", "held by the annotator until lease_expires_at"
    SUBMITTED = "submitted", "judged"
    SKIPPED = "skipped", "given back by the annotator, who will not see it again"
    EXPIRED = "expired", "the lease ran out or was released; anybody may get the comparison, a late vote still counts"


class AssignmentKind(models.TextChoices):
    """Why somebody got a comparison; nothing of it ever reaches their browser."""

    WORK = "work", "to be judged"
    GOLD = "gold", "its verdict is known: this measures the annotator"
    QUALIFICATION = "qualification", "gold of the round before any work"
    REPEAT = "repeat", "judged by the same person before, now with the sides swapped"


class Assignment(models.Model):
    """A lease on one comparison for one annotator, with the sides drawn once and stored."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    # Both begin an index below: one more each would be written at every step of an assignment's life.
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="assignments", db_index=False)
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="assignments", db_index=False)
    status = models.CharField(max_length=20, choices=AssignmentStatus, default=AssignmentStatus.LEASED)
    kind = models.CharField(
        max_length=20, choices=AssignmentKind, default=AssignmentKind.WORK, db_default=AssignmentKind.WORK
    )
    round = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="1 where the same person judges the same comparison again."
    )
    # What the annotator saw is data: never drawn again.
    a_shown_on_left = models.BooleanField()
    display_order = ArrayField(
        models.PositiveSmallIntegerField(),
        null=True,
        blank=True,
        help_text="Of a ranking: the content positions from left to right.",
    )
    # 0 and 1: the one on the screen and the one prefetched behind it. 2: one that was skipped and called back.
    slot = models.PositiveSmallIntegerField(default=0)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    # Whether it fills one of its comparison's places. A late vote finds its place taken: it counts, beyond k. Only
    # work fills places: gold and repeats are nobody's turn.
    holds_place = models.BooleanField(default=True)
    skip_reason = models.CharField(max_length=40, blank=True)
    leased_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField()
    viewed_at = models.DateTimeField(null=True, blank=True, help_text="When it was first on the annotator's screen.")
    submitted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("status", AssignmentStatus), name="assignment_status_known"),
            models.CheckConstraint(condition=one_of("kind", AssignmentKind), name="assignment_kind_known"),
            models.UniqueConstraint(fields=["comparison", "annotator", "round"], name="assignment_once_per_annotator"),
            models.CheckConstraint(
                condition=Q(kind="repeat", round__gte=1) | (~Q(kind="repeat") & Q(round=0)),
                name="assignment_repeats_have_a_round",
            ),
            models.CheckConstraint(condition=Q(slot__in=[0, 1, 2]), name="assignment_slot_known"),
            models.UniqueConstraint(
                fields=["annotator", "project", "slot"],
                condition=Q(status="leased"),
                name="assignment_slot_holds_one",
            ),
            models.CheckConstraint(
                condition=Q(status="submitted", submitted_at__isnull=False)
                | (~Q(status="submitted") & Q(submitted_at__isnull=True)),
                name="assignment_submitted_has_time",
            ),
            models.CheckConstraint(
                condition=Q(kind="work", status="leased", holds_place=True)
                | Q(kind="work", status="submitted")
                | Q(kind="work", status__in=["skipped", "expired"], holds_place=False)
                | (~Q(kind="work") & Q(holds_place=False)),
                name="assignment_place_fits_status",
            ),
        ]
        indexes = [
            # services.expire_assignments
            models.Index(fields=["lease_expires_at"], condition=Q(status="leased"), name="assignment_leased"),
            # today's progress of one annotator
            models.Index(fields=["annotator", "submitted_at"], name="assignment_progress"),
            # pace.py: a project's votes in time and who gave them, from the index alone
            models.Index(
                fields=["project", "submitted_at"],
                include=["annotator"],
                condition=Q(status="submitted"),
                name="assignment_pace",
            ),
            models.Index(
                fields=["project", "leased_at"],
                include=["annotator"],
                condition=Q(status="skipped"),
                name="assignment_skipped",
            ),
        ]

    def __str__(self) -> str:
        return f"assignment {self.pk}"


class Preference(models.TextChoices):
    A = "a", "a is better"
    B = "b", "b is better"
    TIE = "tie", "about the same"
    NEITHER = "neither", "neither is acceptable"
    RANKED = "ranked", "an order of three or more"


# `preference` and `strength` fit together; shared by judgments, gold and adjudications. Strength is signed in content
# order: negative where a is better; 1 … 4 steps, as many as the protocol's scale has.
VERDICT_FITS = (
    Q(preference="a", strength__isnull=True)
    | Q(preference="a", strength__in=[-4, -3, -2, -1])
    | Q(preference="b", strength__isnull=True)
    | Q(preference="b", strength__in=[1, 2, 3, 4])
    | Q(preference="tie", strength__isnull=True)
    | Q(preference="tie", strength=0)
    | Q(preference__in=["neither", "ranked"], strength__isnull=True)
)


class Judgment(models.Model):
    """One verdict. Append-only: a correction is a new row that supersedes the old one.

    `strength` is signed in content order: −3 (a much better) … 0 (about the same) … +3 (b much better); scales of
    eight steps go from −4 to +4 without 0. It is empty where nobody grades, for "neither" and for rankings.
    """

    # Made by the browser: sending the same vote twice stores it once.
    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    # No index of its own: a unique constraint begins with it.
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="judgments", db_index=False)
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="judgments")
    # Indexed where there is one: imported judgments are most of a large table and have none.
    assignment = models.ForeignKey(
        Assignment, on_delete=models.PROTECT, related_name="judgments", null=True, blank=True, db_index=False
    )
    preference = models.CharField(max_length=10, choices=Preference)
    strength = models.SmallIntegerField(null=True, blank=True)
    round = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="As its assignment's.")
    ranking = ArrayField(
        models.PositiveSmallIntegerField(),
        null=True,
        blank=True,
        help_text="Ranks in content order, 1 the best; equal numbers are ties.",
    )
    ratings = json_object(help_text='Absolute scores in content order: {"helpfulness": [4, 2], …}; null: not rated.')
    axes = json_object(help_text='Verdicts on separate axes, strengths in content order: {"harmless": -2, …}.')
    chips = string_list(help_text="Reasons picked from the protocol's list.")
    note = models.TextField(blank=True)
    guideline_version = models.PositiveIntegerField(default=0, db_default=0, help_text="What the person could read.")
    is_partial = models.BooleanField(
        default=False, db_default=False, help_text="Given before every response had arrived."
    )
    is_late = models.BooleanField(default=False, help_text="Sent after the lease had expired; counted all the same.")
    decided_in_ms = models.PositiveIntegerField(null=True, blank=True, help_text="From first paint to the vote.")
    first_key_ms = models.PositiveIntegerField(null=True, blank=True, help_text="From first paint to the first key.")
    meta = models.JSONField(default=dict, blank=True)
    supersedes = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="+", db_index=False
    )
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=VERDICT_FITS,
                name="judgment_strength_fits_preference",
            ),
            models.CheckConstraint(condition=one_of("preference", Preference), name="judgment_preference_known"),
            models.CheckConstraint(
                condition=Q(preference="ranked", ranking__isnull=False)
                | (~Q(preference="ranked") & Q(ranking__isnull=True)),
                name="judgment_ranking_where_ranked",
            ),
            # Of the live ones, whose superseded_at is empty: one. Over all rows and in this order, because it serves
            # look-ups as well: of all votes on a comparison, and of the live ones of a round.
            models.UniqueConstraint(
                fields=["comparison", "round", "superseded_at", "annotator"],
                nulls_distinct=False,
                name="judgment_one_live_per_annotator",
            ),
            models.UniqueConstraint(
                fields=["supersedes"], condition=Q(supersedes__isnull=False), name="judgment_superseded_once"
            ),
        ]
        indexes = [
            models.Index(fields=["assignment"], condition=Q(assignment__isnull=False), name="judgment_of_assignment")
        ]

    def __str__(self) -> str:
        return f"judgment {self.pk}"


class ErrorKind(models.TextChoices):
    FACTUAL = "factual", _("factual")
    LOGICAL = "logical", _("logical")
    OTHER = "other", _("other")


class ErrorSpan(models.Model):
    """A passage of a response that an annotator marked as wrong.

    `start` and `end` count characters of the response's own text, as it was written, so that they stand however the
    text is rendered.
    """

    judgment = models.ForeignKey(Judgment, on_delete=models.PROTECT, related_name="error_spans")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, choices=ErrorKind)
    note = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", ErrorKind), name="errorspan_kind_known"),
            models.CheckConstraint(condition=Q(start__lt=F("end")), name="errorspan_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.start}–{self.end}"


class Rating(models.Model):
    """An absolute score of one response by one annotator, outside any comparison: a rating row of imported data."""

    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="ratings")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="ratings")
    aspect = models.CharField(max_length=60, default="overall")
    value = models.FloatField(null=True, blank=True)
    label = models.CharField(max_length=200, blank=True, help_text="Where the data names a class, not a number.")
    low = models.FloatField(null=True, blank=True, help_text="The scale's ends, where they are known.")
    high = models.FloatField(null=True, blank=True)
    note = models.TextField(blank=True)
    guideline_version = models.PositiveIntegerField(default=0, db_default=0, help_text="As a judgment's.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["response", "annotator", "aspect"], name="rating_once"),
            models.CheckConstraint(condition=Q(value__isnull=False) | ~Q(label=""), name="rating_says_something"),
        ]

    def __str__(self) -> str:
        return f"{self.aspect} {self.value if self.value is not None else self.label}"
