"""What measures and settles judgments: gold items, the qualification round, reviewers' last words, flags.

What the queue and the judging code call:

- `gold_item(annotator, project)`: the gold comparison to hand out next, to be leased with kind "gold"; None: no more.
- `qualification_item(annotator, project)`: the comparison to hand out next to a member whose qualification is running,
  leased with kind "qualification"; None: hand out nothing now. It ends a round that can hold no more items.
- `score_qualification(assignment)`: after every vote on a qualification assignment, in the same transaction. It scores
  the try when that was its last item, and says how the member stands.
- `mark_for_review([comparison_id])`: after every vote, correction, undo, skip and flag on work, in the same
  transaction. It is one UPDATE; importers call it without ids, for the whole project, once at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.content_order import read_ranking
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    EventKind,
    Flag,
    Gold,
    Judgment,
    Membership,
    Preference,
    Project,
    QualificationState,
)
from annotation.protocol import Protocol
from annotation.quality import is_right
from annotation.services.journal import record_event
from annotation.services.statements import Statement, run

QUALIFICATION_TRIES = 2
UNANIMOUS_VOTES = 3

# ── Gold ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def add_gold(
    comparison: Comparison,
    *,
    preference: str,
    strength: int | None = None,
    reason: str = "",
    is_for_qualification: bool = False,
    by: User | None = None,
) -> Gold:
    """Make a comparison gold with its right verdict, in content order; a retired one with this verdict serves again.

    Raises DomainError where the verdict cannot be, and where the comparison cannot be gold.
    """
    _check_verdict(preference, strength)
    with transaction.atomic():
        locked = Comparison.objects.select_for_update().get(pk=comparison.pk)
        if locked.response_count > 2:
            raise DomainError(_("A ranking cannot be gold: gold needs one right verdict on two responses."))
        if locked.is_withdrawn:
            raise DomainError(_("This comparison is withdrawn and handed out no more, so it cannot be gold."))
        gold, made = Gold.objects.get_or_create(
            comparison=locked,
            defaults={
                "preference": preference,
                "strength": strength,
                "reason": reason,
                "is_for_qualification": is_for_qualification,
                "created_by": by,
            },
        )
        if not made:
            if (gold.preference, gold.strength) != (preference, strength) and _was_served(gold):
                raise ConflictError(
                    _("People were measured by another verdict on this comparison already. Choose another for gold.")
                )
            gold.preference, gold.strength, gold.retired_at = preference, strength, None
            gold.reason, gold.is_for_qualification = reason, is_for_qualification
            gold.save()
        Comparison.objects.filter(pk=locked.pk).update(is_gold=True, review_since=None)
        record_event(EventKind.EDIT, project=locked.project_id, user=by, comparison_id=locked.pk, action="gold added")
    comparison.is_gold = True
    return gold


def retire_gold(gold: Gold, *, by: User | None = None) -> None:
    """Serve it as gold no more; it becomes an ordinary comparison again, and what it measured stays."""
    with transaction.atomic():
        if Gold.objects.filter(pk=gold.pk, retired_at=None).update(retired_at=timezone.now()):
            Comparison.objects.filter(pk=gold.comparison_id).update(is_gold=False)
            project = Comparison.objects.values_list("project", flat=True).get(pk=gold.comparison_id)
            record_event(
                EventKind.EDIT, project=project, user=by, comparison_id=gold.comparison_id, action="gold retired"
            )


def use_for_qualification(gold: Gold, is_for_qualification: bool, *, by: User | None = None) -> None:
    """Move a gold item between the qualification round and the work of those who passed it."""
    with transaction.atomic():
        changed = Gold.objects.filter(pk=gold.pk).exclude(is_for_qualification=is_for_qualification)
        if changed.update(is_for_qualification=is_for_qualification):
            project = Comparison.objects.values_list("project", flat=True).get(pk=gold.comparison_id)
            record_event(
                EventKind.EDIT,
                project=project,
                user=by,
                comparison_id=gold.comparison_id,
                action="gold for qualification" if is_for_qualification else "gold for work",
            )


_UNANIMOUS = """
    SELECT c.id, min(j.preference), percentile_disc(0.5) WITHIN GROUP (ORDER BY j.strength), count(*)
      FROM annotation_comparison c
      JOIN annotation_judgment j ON j.comparison_id = c.id AND j.superseded_at IS NULL AND j.round = 0
      JOIN annotation_annotator n ON n.id = j.annotator_id AND n.is_human
     WHERE c.project_id = %(project)s AND c.response_count = 2 AND NOT c.is_withdrawn AND c.review_since IS NULL
       AND NOT EXISTS (SELECT 1 FROM annotation_gold g WHERE g.comparison_id = c.id)
     GROUP BY c.id
    HAVING count(*) >= %(votes)s AND min(j.preference) = max(j.preference) AND min(j.preference) IN ('a', 'b')
       AND coalesce(max(j.strength) - min(j.strength), 0) <= 1
     ORDER BY count(*) DESC, abs(coalesce(avg(j.strength), 0)) DESC, c.id
     LIMIT %(limit)s
"""


def promote_unanimous(
    project: Project, *, by: User | None = None, at_least: int = UNANIMOUS_VOTES, at_most: int = 50
) -> int:
    """Make gold of the comparisons that everybody judged alike, the surest first; gives how many.

    Alike: the same side, by `at_least` people or more, with strengths no more than one apart. The verdict is the
    median strength. What was gold once is left out.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_UNANIMOUS, {"project": project.pk, "votes": at_least, "limit": at_most})
            found = cursor.fetchall()
        made = Gold.objects.bulk_create(
            [
                Gold(
                    comparison_id=pk,
                    preference=preference,
                    strength=strength,
                    reason=_("All %(votes)s people agreed.") % {"votes": votes},
                    created_by=by,
                )
                for pk, preference, strength, votes in found
            ],
            ignore_conflicts=True,
        )
        Comparison.objects.filter(pk__in=[gold.comparison_id for gold in made]).update(is_gold=True)
        if made:
            record_event(EventKind.EDIT, project=project, user=by, action="gold promoted", count=len(made))
    return len(made)


def _was_served(gold: Gold) -> bool:
    return Assignment.objects.filter(
        comparison=gold.comparison_id,
        kind__in=[AssignmentKind.GOLD, AssignmentKind.QUALIFICATION],
        status=AssignmentStatus.SUBMITTED,
    ).exists()


def _check_verdict(preference: str, strength: int | None) -> None:
    signs = {Preference.A: -1, Preference.TIE: 0, Preference.B: 1}
    if preference not in (*signs, Preference.NEITHER):
        raise DomainError(_("A verdict is a side, about the same, or neither."))
    fits = strength is None or (
        preference in signs and abs(strength) <= 4 and (strength > 0) - (strength < 0) == signs[Preference(preference)]
    )
    if not fits:
        raise DomainError(_("The strength %(strength)s does not fit the verdict.") % {"strength": strength})


# ── What the queue hands out ─────────────────────────────────────────────────────────────────────────────────────


def gold_item(annotator: Annotator, project: Project) -> int | None:
    """A comparison to measure this person by that they never had, drawn at random; None: there is no more."""
    return _unseen_gold(annotator, project, is_for_qualification=False)


def qualification_item(annotator: Annotator, project: Project) -> int | None:
    """The next comparison of a running qualification round; None: nothing now, see how the member stands.

    A round that no item is left for ends: with the items it has, or, where none was ever there, by letting the person
    work, for nobody can pass it.
    """
    with transaction.atomic():
        membership = _locked_running(annotator, project)
        if membership is None or not project.qualification_count:
            return None
        held = _in_qualification(annotator, project).filter(status=AssignmentStatus.LEASED).count()
        done = _judged_in_qualification(annotator, project)
        if done % project.qualification_count + held >= project.qualification_count:
            return None
        item = _unseen_gold(annotator, project, is_for_qualification=True)
        if item is None and not held:
            _end_try(membership, annotator, project, items=done % project.qualification_count)
        return item


def score_qualification(assignment: Assignment) -> QualificationState | None:
    """Score the try if this was its last item; gives how the member stands, None outside a running round.

    Corrections change no score that was given: only the first vote on an assignment can end a try.
    """
    if assignment.kind != AssignmentKind.QUALIFICATION:
        return None
    with transaction.atomic():
        annotator, project = assignment.annotator, assignment.project
        membership = _locked_running(annotator, project)
        if membership is None or not project.qualification_count:
            return None
        if assignment.judgments.count() == 1:
            done = _judged_in_qualification(annotator, project)
            if done and done % project.qualification_count == 0:
                _end_try(membership, annotator, project, items=project.qualification_count)
        return QualificationState(membership.qualification)


def _end_try(membership: Membership, annotator: Annotator, project: Project, *, items: int) -> None:
    """Score the last `items` of a try; the row is locked."""
    votes = Judgment.objects.filter(
        assignment__in=_in_qualification(annotator, project), superseded_at=None
    ).select_related("comparison__gold")
    last = votes.order_by("-assignment__submitted_at", "-pk")[:items]
    right = sum(
        is_right(vote.comparison.gold.preference, vote.comparison.gold.strength, vote.preference, vote.strength)
        for vote in last
    )
    if not items:
        nobody_can = membership.qualification_tries == 0
        membership.qualification = QualificationState.NOT_NEEDED if nobody_can else QualificationState.FAILED
    else:
        membership.qualification_tries += 1
        if right >= project.qualification_pass_mark * items:
            membership.qualification = QualificationState.PASSED
        elif membership.qualification_tries >= QUALIFICATION_TRIES:
            membership.qualification = QualificationState.FAILED
    membership.save(update_fields=["qualification", "qualification_tries"])
    record_event(
        EventKind.MEMBER,
        project=project,
        user=annotator.user_id,
        action="qualification",
        state=str(membership.qualification),
        tries=membership.qualification_tries,
        right=right,
        items=items,
    )


def _locked_running(annotator: Annotator, project: Project) -> Membership | None:
    return (
        Membership.objects.select_for_update()
        .filter(project=project, user=annotator.user_id, qualification=QualificationState.RUNNING)
        .first()
    )


def _in_qualification(annotator: Annotator, project: Project) -> QuerySet[Assignment]:
    return Assignment.objects.filter(annotator=annotator, project=project, kind=AssignmentKind.QUALIFICATION)


def _judged_in_qualification(annotator: Annotator, project: Project) -> int:
    return _in_qualification(annotator, project).filter(status=AssignmentStatus.SUBMITTED).count()


# In the member's languages and skills, as work is routed (services.queue).
_UNSEEN_GOLD = Statement("""
SELECT c.id
FROM annotation_gold g
JOIN annotation_comparison c ON c.id = g.comparison_id AND c.project_id = %(project)s AND NOT c.is_withdrawn
LEFT JOIN annotation_membership m ON m.project_id = c.project_id AND m.user_id = %(user)s
WHERE g.retired_at IS NULL AND g.is_for_qualification = %(is_for_qualification)s
  AND (c.lang = '' OR coalesce(m.languages, '{}') = '{}' OR c.lang = ANY (m.languages))
  AND (c.skill = '' OR coalesce(m.skills, '{}') = '{}' OR c.skill = ANY (m.skills))
  AND NOT coalesce(%(annotator)s = ANY (c.written_by), false)
  AND NOT EXISTS (
    SELECT 1 FROM annotation_assignment mine
    WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired')
  AND NOT EXISTS (
    SELECT 1 FROM annotation_judgment mine WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s)
ORDER BY random() LIMIT 1
""")


def _unseen_gold(annotator: Annotator, project: Project, *, is_for_qualification: bool) -> int | None:
    found = run(
        _UNSEEN_GOLD,
        {
            "project": project.pk,
            "user": annotator.user_id,
            "annotator": annotator.pk,
            "is_for_qualification": is_for_qualification,
        },
    )
    return found[0][0] if found else None


# ── What waits for a reviewer ────────────────────────────────────────────────────────────────────────────────────

SKIPS_FOR_REVIEW = 3

# People's votes on one comparison disagree where they take both sides, lie more than two steps apart, or share the
# first place; rankings, where no response is first in all of them. Votes on gold measure the voters. What a reviewer
# has dealt with waits again when something new happens. What is withdrawn stays as it is: several skips withdraw a
# comparison and have put it before the reviewers.
_MARK = """
WITH looked_at AS (
    SELECT c.id, c.review_since,
           EXISTS (SELECT 1 FROM annotation_flag f WHERE f.comparison_id = c.id AND f.resolved_at IS NULL)
        OR skips.people >= {skips} AND skips.newest > coalesce(c.reviewed_at, '-infinity')
        OR NOT c.is_gold AND votes.newest > coalesce(c.reviewed_at, '-infinity')
           AND NOT EXISTS (SELECT 1 FROM annotation_adjudication d
                            WHERE d.comparison_id = c.id AND d.superseded_at IS NULL)
           AND (votes.a > 0 AND votes.b > 0 OR votes.highest - votes.lowest > 2
                OR votes.people >= 2 AND (SELECT count(*) > 1
                                            FROM unnest(ARRAY[a, b, tie, neither, ranked]) n
                                           WHERE n = greatest(a, b, tie, neither, ranked))
                OR votes.first_in_all = 0)
           AS waits
      FROM annotation_comparison c
     CROSS JOIN LATERAL (
        SELECT count(*) AS people, max(j.created_at) AS newest, min(j.strength) AS lowest, max(j.strength) AS highest,
               count(*) FILTER (WHERE j.preference = 'a') AS a, count(*) FILTER (WHERE j.preference = 'b') AS b,
               count(*) FILTER (WHERE j.preference = 'tie') AS tie,
               count(*) FILTER (WHERE j.preference = 'neither') AS neither,
               count(*) FILTER (WHERE j.preference = 'ranked') AS ranked,
               bit_and((SELECT sum(1 << place::int) FROM unnest(j.ranking) WITH ORDINALITY ranks (rank, place)
                         WHERE rank = 1)::int) AS first_in_all
          FROM annotation_judgment j
          JOIN annotation_annotator n ON n.id = j.annotator_id AND n.is_human
          LEFT JOIN annotation_assignment s ON s.id = j.assignment_id
         WHERE j.comparison_id = c.id AND j.superseded_at IS NULL AND j.round = 0
           AND coalesce(s.kind, 'work') = 'work') votes
     CROSS JOIN LATERAL (
        SELECT count(DISTINCT s.annotator_id) AS people, max(s.leased_at) AS newest FROM annotation_assignment s
         WHERE s.comparison_id = c.id AND s.status = 'skipped') skips
     WHERE NOT c.is_withdrawn AND {which}
)
UPDATE annotation_comparison c SET review_since = CASE WHEN looked_at.waits THEN now() END
  FROM looked_at
 WHERE c.id = looked_at.id AND coalesce(looked_at.waits, false) <> (looked_at.review_since IS NOT NULL)
"""


def mark_for_review(comparison_ids: Collection[int] | None = None, *, project: Project | None = None) -> int:
    """Put comparisons before the reviewers, or take them away, as votes, flags and skips now say; gives how many.

    Of the comparisons named, or of a whole project.
    """
    which = "c.id = ANY(%(ids)s)" if comparison_ids is not None else "c.project_id = %(project)s"
    values = {"ids": list(comparison_ids or ()), "project": project.pk if project else None}
    with connection.cursor() as cursor:
        cursor.execute(_MARK.format(which=which, skips=SKIPS_FOR_REVIEW), values)
        return cursor.rowcount


def adjudicate(
    comparison: Comparison,
    *,
    reviewer: Annotator,
    preference: str,
    strength: int | None = None,
    ranking: Sequence[int] | None = None,
    note: str = "",
    based_on: int | None = None,
) -> Adjudication:
    """Store a reviewer's last word, in content order; it supersedes the one before and settles open flags.

    based_on: the adjudication that stood when the reviewer looked, None for none. The same verdict again by the same
    person changes nothing. Raises ConflictError where somebody else was faster, DomainError for an impossible verdict.
    """
    with transaction.atomic():
        locked = Comparison.objects.select_for_update(of=("self",)).select_related("project").get(pk=comparison.pk)
        ranks = _check_last_word(locked, preference, strength, ranking)
        standing = Adjudication.objects.filter(comparison=locked, superseded_at=None).first()
        if standing:
            said = (standing.reviewer_id, standing.preference, standing.strength, standing.ranking, standing.note)
            if said == (reviewer.pk, preference, strength, ranks, note):
                return standing
            if standing.pk != based_on:
                raise ConflictError(
                    _("Somebody settled this comparison meanwhile. Look at their verdict; yours was not stored.")
                )
            Adjudication.objects.filter(pk=standing.pk).update(superseded_at=timezone.now())
        adjudication = Adjudication.objects.create(
            comparison=locked,
            reviewer=reviewer,
            preference=preference,
            strength=strength,
            ranking=ranks,
            note=note,
        )
        _dealt_with(locked, reviewer, "settled")
    return adjudication


def _check_last_word(
    comparison: Comparison, preference: str, strength: int | None, ranking: Sequence[int] | None
) -> list[int] | None:
    """The ranks to store, None for a pair or "neither". Raises DomainError for an impossible verdict."""
    if comparison.response_count == 2:
        if ranking is not None:
            raise DomainError(_("Only three responses or more are ranked; of two, name the better one."))
        _check_verdict(preference, strength)
        return None
    is_neither = preference == Preference.NEITHER and ranking is None
    if strength is not None or not (is_neither or preference == Preference.RANKED):
        raise DomainError(_("A comparison of three or more is settled by a ranking, or by “none of them is good”."))
    protocol = Protocol.of(comparison.project)
    return None if is_neither else read_ranking(ranking, protocol, range(comparison.response_count))


def leave_undecided(comparison: Comparison, *, reviewer: Annotator) -> None:
    """Take a comparison off the reviewers' list without a verdict: opinions may differ. Its flags are resolved."""
    with transaction.atomic():
        _dealt_with(Comparison.objects.select_for_update().get(pk=comparison.pk), reviewer, "left undecided")


def withdraw_comparison(comparison: Comparison, *, reviewer: Annotator) -> None:
    """Hand a broken comparison out no more; its votes stay. Its flags count as resolved."""
    with transaction.atomic():
        locked = Comparison.objects.select_for_update().get(pk=comparison.pk)
        Comparison.objects.filter(pk=locked.pk).update(is_withdrawn=True)
        _dealt_with(locked, reviewer, "withdrawn")


def restore_comparison(comparison: Comparison, *, reviewer: Annotator) -> None:
    """Hand a withdrawn comparison out again; what it was withdrawn for counts as dealt with."""
    with transaction.atomic():
        locked = Comparison.objects.select_for_update().get(pk=comparison.pk)
        if Comparison.objects.filter(pk=locked.pk, is_withdrawn=True).update(is_withdrawn=False):
            _dealt_with(locked, reviewer, "restored")


def _dealt_with(comparison: Comparison, reviewer: Annotator, action: str) -> None:
    now = timezone.now()
    Comparison.objects.filter(pk=comparison.pk).update(review_since=None, reviewed_at=now)
    resolved = Flag.objects.filter(comparison=comparison, resolved_at=None).update(
        resolved_at=now, resolved_by=reviewer.user_id
    )
    record_event(
        EventKind.ADJUDICATE,
        project=comparison.project_id,
        user=reviewer.user_id,
        comparison_id=comparison.pk,
        action=action,
        flags=resolved,
    )
