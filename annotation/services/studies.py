"""Human evaluation: studies, and the queue of responses that people rate pass or fail.

A rating's life: leased → submitted | skipped | expired; a submitted one takes corrections, an expired one a late
answer. `StudyItem.assigned_count` counts leases and the first answers that fill a place; a late answer that finds its
place taken counts beyond k. Locks are taken in the order rating, item.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.content_order import check_text
from annotation.errors import AssignmentNotFoundError, ConflictError, DomainError
from annotation.models import (
    Annotator,
    Comparison,
    EventKind,
    Judgment,
    Membership,
    Project,
    Prompt,
    QueueTier,
    RatingStatus,
    Response,
    ResponseSource,
    RubricRating,
    Study,
    StudyItem,
    StudyKind,
)
from annotation.models.studies import ANSWERS
from annotation.services.journal import record_event
from annotation.services.places import comparison_of
from annotation.services.texts import comparisons_between

MAX_NOTE_CHARS = 10_000
MOST_JUDGMENTS = 50

# ── Making a study ───────────────────────────────────────────────────────────────────────────────────────────────


def create_study(
    *,
    project: Project,
    name: str,
    kind: StudyKind,
    source: ResponseSource,
    against: ResponseSource | None,
    prompts: Iterable[Prompt],
    judgments_per_item: int = 1,
    selection: Mapping[str, Any] | None = None,
    by: User | None = None,
) -> Study:
    """Put these prompts' responses before the annotators; those that have no response yet are left out.

    Raises DomainError for a name that is taken, for sources that cannot be, and where there is nothing to judge.
    """
    name = name.strip()
    if not name:
        raise DomainError(_("Give the evaluation a name: commands and reports call it by that."))
    if against == source:
        raise DomainError(_("A model cannot be compared with itself; choose two different ones."))
    if kind == StudyKind.GSB and against is None:
        raise DomainError(_("Good/same/bad compares two models; choose the one to compare with."))
    if not 1 <= judgments_per_item <= MOST_JUDGMENTS:
        raise DomainError(_("Between 1 and %(most)s people judge each item.") % {"most": MOST_JUDGMENTS})
    try:
        with transaction.atomic():
            study = Study.objects.create(
                project=project,
                name=name,
                kind=kind,
                source=source,
                against=against,
                judgments_per_item=judgments_per_item,
                selection=dict(selection or {}),
                created_by=by,
            )
            count = _fill(study, prompts)
            if not count:
                raise DomainError(
                    _(
                        "No prompt of this selection has a response of each model that differs, so there is nothing "
                        "to judge. Nothing was changed. Have the responses written first, or choose other prompts."
                    )
                )
            record_event(
                EventKind.SETTINGS, project=project, user=by, action="study_created", study=study.pk, items=count
            )
    except IntegrityError as error:
        if "annotation_study_name" not in str(error):
            raise
        raise DomainError(
            _("There is an evaluation called %(name)s already; take another name.") % {"name": name}
        ) from None
    return study


def extend_study(study: Study, prompts: Iterable[Prompt], *, by: User | None = None) -> int:
    """Add what has been written since; gives how many items are new."""
    with transaction.atomic():
        locked = Study.objects.select_for_update().get(pk=study.pk)
        count = _fill(locked, prompts)
        if count:
            record_event(
                EventKind.SETTINGS,
                project=study.project_id,
                user=by,
                action="study_extended",
                study=study.pk,
                items=count,
            )
    return count


def close_study(study: Study, *, by: User | None = None) -> None:
    """Hand out no more of it. Comparisons that the project had before stay in its queue."""
    with transaction.atomic():
        if not Study.objects.filter(pk=study.pk, closed_at=None).update(closed_at=timezone.now()):
            return
        own = StudyItem.objects.filter(study=study, is_own=True).values("comparison")
        elsewhere = StudyItem.objects.filter(comparison__in=own, study__closed_at=None).values("comparison")
        Comparison.objects.filter(pk__in=own, is_withdrawn=False).exclude(pk__in=elsewhere).update(is_withdrawn=True)
        record_event(EventKind.SETTINGS, project=study.project_id, user=by, action="study_closed", study=study.pk)
    study.refresh_from_db(fields=["closed_at"])


def _fill(study: Study, prompts: Iterable[Prompt]) -> int:
    by_id = {prompt.pk: prompt for prompt in prompts if prompt.project_id == study.project_id}
    responses: dict[int, dict[int, Response]] = {}
    found = Response.objects.filter(prompt__in=by_id, source__in=study.sources).order_by("prompt", "sample_index")
    if "sampling" in study.selection:
        found = found.filter(sampling=study.selection["sampling"])
    for response in found:  # the first of each source
        responses.setdefault(response.prompt_id, {}).setdefault(response.source_id, response)
    if study.kind == StudyKind.GSB:
        return _fill_pairs(study, by_id, responses)
    # With two sources only prompts that both answered, so that their shares are about the same prompts.
    whole = {pk: made for pk, made in responses.items() if len(made) == len(study.sources)}
    known = set(StudyItem.objects.filter(study=study).values_list("response", flat=True))
    items = [
        StudyItem(study=study, response=response, required_count=study.judgments_per_item, queue_key=random.random())
        for made in whole.values()
        for response in made.values()
        if response.pk not in known
    ]
    StudyItem.objects.bulk_create(items, batch_size=1000)
    return len(items)


def _fill_pairs(study: Study, prompts: Mapping[int, Prompt], responses: Mapping[int, Mapping[int, Response]]) -> int:
    """A comparison of the two that the project has already is taken along with its votes: nobody is asked twice."""
    assert study.against_id is not None
    pairs = {
        pk: (made[study.source_id], made[study.against_id])
        for pk, made in responses.items()
        if len(made) == 2 and made[study.source_id].text.strip() != made[study.against_id].text.strip()
    }
    known = comparisons_between(study.project, {frozenset(one.pk for one in pair): pair for pair in pairs.values()})
    there = {comparison.prompt_id: comparison for comparison in known.values()}
    new = {pk: _new_comparison(study, prompts[pk], pair) for pk, pair in pairs.items() if pk not in there}
    Comparison.objects.bulk_create(new.values(), batch_size=1000)
    ids = [comparison.pk for comparison in there.values()]
    held = Comparison.objects.filter(pk__in=ids)
    # What only a model was to judge so far.
    by_people = Judgment.objects.filter(comparison=OuterRef("pk"), annotator__is_human=True)
    of_judges = held.filter(~Exists(by_people), is_withdrawn=True, withdrawn_with_prompt=False, required_count=0)
    for_judges = set(of_judges.values_list("pk", flat=True))
    held.filter(pk__in=for_judges).update(is_withdrawn=False)
    held.filter(required_count__lt=study.judgments_per_item).update(required_count=study.judgments_per_item)
    held.filter(assigned_count__gt=0, assigned_count__lt=F("required_count")).update(tier=QueueTier.PARTLY_JUDGED)
    made_before = StudyItem.objects.filter(comparison__in=ids, is_own=True)
    held.filter(
        pk__in=made_before.exclude(study__closed_at=None).values("comparison"), withdrawn_with_prompt=False
    ).update(is_withdrawn=False)
    own = set(made_before.values_list("comparison", flat=True)) | for_judges | {one.pk for one in new.values()}
    asked = set(StudyItem.objects.filter(study=study).values_list("comparison", flat=True))
    items = [
        StudyItem(study=study, comparison=comparison, is_own=comparison.pk in own)
        for comparison in (there | new).values()
        if comparison.pk not in asked
    ]
    StudyItem.objects.bulk_create(items, batch_size=1000)
    return len(items)


def _new_comparison(study: Study, prompt: Prompt, pair: tuple[Response, Response]) -> Comparison:
    comparison = comparison_of(study.project, prompt, pair)
    comparison.required_count = max(comparison.required_count, study.judgments_per_item)
    return comparison


# ── Handing out ──────────────────────────────────────────────────────────────────────────────────────────────────

# Items of open studies in a random order, so that the models and prompts mix, that this person has not had, did not
# write, and gets routed. The item is locked and passed over by others meanwhile.
_CLAIM = """
SELECT i.id FROM annotation_study s
JOIN annotation_studyitem i ON i.study_id = s.id
JOIN annotation_response r ON r.id = i.response_id
JOIN annotation_prompt p ON p.id = r.prompt_id
WHERE s.project_id = %(project)s AND s.kind = 'rubric' AND s.closed_at IS NULL AND i.assigned_count < i.required_count
  AND p.archived_at IS NULL AND r.author_id IS DISTINCT FROM %(annotator)s
  AND (p.lang = '' OR %(languages)s::text[] = '{}' OR p.lang = ANY(%(languages)s::text[]))
  AND (p.skill = '' OR %(skills)s::text[] = '{}' OR p.skill = ANY(%(skills)s::text[]))
  AND NOT EXISTS (SELECT 1 FROM annotation_rubricrating mine
                   WHERE mine.item_id = i.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired')
ORDER BY s.id, i.queue_key, i.id LIMIT 1 FOR NO KEY UPDATE OF i SKIP LOCKED
"""


def claim_rating(*, annotator: Annotator, project: Project) -> RubricRating | None:
    """What the person holds, or else the next response to rate; None where nothing is left for them."""
    with transaction.atomic():
        # Their tabs take turns: the membership is locked, as in the queue of comparisons.
        member = (
            Membership.objects.select_for_update(no_key=True).filter(project=project, user=annotator.user_id).first()
        )
        if member is None:
            return None
        held = _ratings().filter(annotator=annotator, project=project, status=RatingStatus.LEASED).first()
        if held is None:
            if not project.is_open:
                return None
            _expire(project)
            held = _lease(member, annotator)
            if held is None:
                return None
        held.lease_expires_at = _lease_end()
        held.save(update_fields=["lease_expires_at"])
        return held


def _lease(member: Membership, annotator: Annotator) -> RubricRating | None:
    values = {
        "project": member.project_id,
        "annotator": annotator.pk,
        "languages": member.languages,
        "skills": member.skills,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, values)
        row = cursor.fetchone()
    if row is None:
        return None
    StudyItem.objects.filter(pk=row[0]).update(assigned_count=F("assigned_count") + 1)
    rating, _made = RubricRating.objects.update_or_create(
        item_id=row[0],
        annotator=annotator,
        superseded_at=None,
        defaults={
            "project_id": member.project_id,
            "status": RatingStatus.LEASED,
            "leased_at": timezone.now(),
            "lease_expires_at": _lease_end(),
        },
    )
    return _ratings().get(pk=rating.pk)


def _ratings() -> QuerySet[RubricRating]:
    return RubricRating.objects.select_related("item__study", "item__response__prompt")


def _lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)


def _expire(project: Project) -> None:
    """Take back what ran out; what somebody answers at this moment is passed over."""
    over = RubricRating.objects.filter(
        project=project, status=RatingStatus.LEASED, lease_expires_at__lt=timezone.now()
    ).select_for_update(skip_locked=True, no_key=True)
    for rating in over.order_by("pk"):
        _give_back(rating, RatingStatus.EXPIRED)


def _give_back(rating: RubricRating, status: RatingStatus) -> None:
    RubricRating.objects.filter(pk=rating.pk).update(status=status)
    StudyItem.objects.filter(pk=rating.item_id).update(assigned_count=F("assigned_count") - 1)
    rating.status = status


def renew_rating(*, rating_id: UUID, annotator: Annotator) -> bool:
    """Prolong the lease; False where the annotator holds it no more."""
    held = RubricRating.objects.filter(public_id=rating_id, annotator=annotator, status=RatingStatus.LEASED)
    return held.update(lease_expires_at=_lease_end()) == 1


def release_ratings(annotator: Annotator, project: Project | None) -> int:
    """Give back what somebody holds, in one project or everywhere; gives how many."""
    held = RubricRating.objects.filter(annotator=annotator, status=RatingStatus.LEASED).select_for_update(no_key=True)
    if project is not None:
        held = held.filter(project=project)
    ratings = list(held.order_by("pk"))
    for rating in ratings:
        _give_back(rating, RatingStatus.EXPIRED)
    return len(ratings)


# ── Rating ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Marks:
    """What somebody found: the four marks and whether they would be content."""

    intent: bool
    accuracy: bool
    language: bool
    safety: bool
    is_satisfied: bool
    note: str = ""


def submit_rating(
    *,
    rating_id: UUID,
    annotator: Annotator,
    marks: Marks,
    guideline_version: int = 0,
    decided_in_ms: int | None = None,
    first_key_ms: int | None = None,
) -> RubricRating:
    """Store the marks; the same again changes nothing, others on a stored rating correct it.

    Raises DomainError for a rating that is not this person's, or that they gave back.
    """
    check_text("note", marks.note, MAX_NOTE_CHARS)
    with transaction.atomic():
        rating = _lock(rating_id, annotator)
        if guideline_version > rating.item.study.project.guideline_version:
            raise DomainError(_("guideline_version: there is no such version; reload the page and save again."))
        if rating.status == RatingStatus.SKIPPED:
            raise ConflictError(_("You gave this response back; reload the page for the next one."))
        if rating.status == RatingStatus.SUBMITTED:
            if _marks_of(rating) == marks:
                return rating
            return _correct(rating, marks, guideline_version)
        rating.is_late = rating.status == RatingStatus.EXPIRED
        if rating.is_late:
            # It fills a place again where there is one; it counts in any case.
            StudyItem.objects.filter(pk=rating.item_id, assigned_count__lt=F("required_count")).update(
                assigned_count=F("assigned_count") + 1
            )
        _write(rating, marks)
        rating.status, rating.submitted_at = RatingStatus.SUBMITTED, timezone.now()
        rating.guideline_version = guideline_version
        rating.decided_in_ms, rating.first_key_ms = decided_in_ms, first_key_ms
        rating.save()
        _record(EventKind.VOTE, rating)
        return rating


def _marks_of(rating: RubricRating) -> Marks:
    return Marks(**{name: getattr(rating, name) for name in ANSWERS}, note=rating.note)


def _write(rating: RubricRating, marks: Marks) -> None:
    for name in ANSWERS:
        setattr(rating, name, getattr(marks, name))
    rating.note = marks.note


def _correct(rating: RubricRating, marks: Marks, guideline_version: int) -> RubricRating:
    """The address stays with the row that counts; the one that is replaced gets another."""
    now = timezone.now()
    old = RubricRating.objects.get(pk=rating.pk)
    public_id, old.public_id, old.superseded_at = rating.public_id, uuid4(), now
    old.save(update_fields=["public_id", "superseded_at"])
    rating.pk, rating._state.adding = None, True
    rating.public_id, rating.submitted_at, rating.guideline_version = public_id, now, guideline_version
    _write(rating, marks)
    rating.save()
    _record(EventKind.CHANGE, rating)
    return rating


def skip_rating(*, rating_id: UUID, annotator: Annotator) -> RubricRating:
    """Give the response back; this person does not get it again. What is rated already stays."""
    with transaction.atomic():
        rating = _lock(rating_id, annotator)
        if rating.status == RatingStatus.SUBMITTED:
            raise ConflictError(_("You have rated this response already; change the marks instead."))
        if rating.status == RatingStatus.LEASED:
            _give_back(rating, RatingStatus.SKIPPED)
        else:
            RubricRating.objects.filter(pk=rating.pk).update(status=RatingStatus.SKIPPED)
        _record(EventKind.SKIP, rating)
        return rating


def _lock(rating_id: UUID, annotator: Annotator) -> RubricRating:
    rating = (
        RubricRating.objects.select_for_update(of=("self",), no_key=True)
        .select_related("item__study__project")
        .filter(public_id=rating_id, annotator=annotator)
        .first()
    )
    if rating is None:
        raise AssignmentNotFoundError(_("This response is not yours to rate; reload the page for the next one."))
    return rating


def _record(kind: EventKind, rating: RubricRating) -> None:
    said = {name: getattr(rating, name) for name in ANSWERS} if rating.status == RatingStatus.SUBMITTED else {}
    record_event(
        kind,
        project=rating.project_id,
        user=rating.annotator.user_id,
        study=rating.item.study_id,
        rating=str(rating.public_id),
        **said,
    )
