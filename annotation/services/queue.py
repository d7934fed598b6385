"""The queue: who gets which comparison next, for how long, and how it comes back.

An assignment's life: leased → submitted | skipped | expired; skipped and expired ones can be leased again by the same
person, and a submitted one takes corrections. `Comparison.assigned_count` always equals the number of its assignments
that hold a place.

What is handed out first: gold items and repeats where they are due (services.serving), then what some have judged and
not yet all, then what a reward model finds uncertain (never more than every other item), then new comparisons in the
order of `queue_key`. Somebody with languages or skills gets those, and what names none.

Locks are taken in the order that services.desk gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotation.models import Annotator, Assignment, AssignmentKind, AssignmentStatus, Project, QualificationState
from annotation.services import serving
from annotation.services.desk import (
    JOIN_TEXTS,
    LEASE_SLOTS,
    WITH_TEXTS,
    Seat,
    assignments_on_desk,
    read_texts,
    take_seat,
    with_texts,
)
from annotation.services.quality import gold_item, qualification_item
from annotation.services.statements import Statement, run

PARTLY_JUDGED_WINDOW = 100
"""Of the partly judged, this many are looked through for one that the person has not had; then others come first."""

# ── Handing out ──────────────────────────────────────────────────────────────────────────────────────────────────

_IS_OPEN = (
    "c.project_id = %(project)s AND c.assigned_count < c.required_count AND NOT c.is_gold AND NOT c.is_withdrawn"
)

# One index look-up a candidate (OFFSET 0): as a join it would read all that the person ever judged.
_IS_NEW_TO_THEM = """
      NOT coalesce(%(annotator)s = ANY (c.written_by), false)
      AND NOT EXISTS (
        SELECT 1 FROM annotation_assignment mine
        WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired' OFFSET 0)"""

# The first of each tier, in one statement; a tier is looked at where those before it hold nothing. Who has judged
# thousands that others have not gives up on the partly judged after a window of them, or all would be read each time.
_FROM_ALL = f"""
partly AS (
    SELECT c.id FROM annotation_comparison c
    WHERE {_IS_OPEN} AND c.tier = 0 {{in_window}} AND {_IS_NEW_TO_THEM}
    ORDER BY c.queue_key, c.id LIMIT 1 FOR NO KEY UPDATE OF c {{locked}}
), uncertain AS (
    SELECT c.id, c.queue_key FROM annotation_comparison c
    WHERE NOT EXISTS (SELECT 1 FROM partly) AND {_IS_OPEN} AND c.tier = 1 AND {_IS_NEW_TO_THEM}
    ORDER BY c.queue_key, c.id LIMIT 1 FOR NO KEY UPDATE OF c {{locked}}
), new AS (
    SELECT c.id, c.queue_key FROM annotation_comparison c
    WHERE NOT EXISTS (SELECT 1 FROM partly) AND {_IS_OPEN} AND c.tier = 2 AND {_IS_NEW_TO_THEM}
    ORDER BY c.queue_key, c.id LIMIT 1 FOR NO KEY UPDATE OF c {{locked}}
), free AS (
    SELECT id FROM partly
    UNION ALL (
        SELECT id FROM (
            SELECT id, CASE WHEN %(random)s THEN queue_key ELSE '-infinity' END AS key FROM uncertain
            UNION ALL SELECT id, queue_key FROM new) found
        ORDER BY key, id LIMIT 1)
)"""
_IN_WINDOW = f"""
      AND c.queue_key <= coalesce((
        SELECT c.queue_key FROM annotation_comparison c WHERE {_IS_OPEN} AND c.tier = 0
        ORDER BY c.queue_key, c.id OFFSET {PARTLY_JUDGED_WINDOW - 1} LIMIT 1), 'infinity')"""

# For a person to whom only some languages or skills are routed: the routes with open comparisons are found by jumping
# from one to the next in the index, and each gives its first few, so that a rare language costs as much as a common.
_FROM_ROUTES = f"""
routes AS (
    (SELECT c.lang, c.skill FROM annotation_comparison c WHERE {_IS_OPEN} ORDER BY c.lang, c.skill LIMIT 1)
    UNION ALL
    SELECT following.lang, following.skill FROM routes CROSS JOIN LATERAL (
        SELECT c.lang, c.skill FROM annotation_comparison c
        WHERE {_IS_OPEN} AND (c.lang, c.skill) > (routes.lang, routes.skill)
        ORDER BY c.lang, c.skill LIMIT 1) following
), first AS (
    SELECT head.*, tier FROM routes CROSS JOIN generate_series(0, 2) tier CROSS JOIN LATERAL (
        SELECT c.id, c.queue_key FROM (
            SELECT c.id, c.queue_key, c.written_by FROM annotation_comparison c
            WHERE {_IS_OPEN} AND c.lang = routes.lang AND c.skill = routes.skill AND c.tier = tier.tier
            ORDER BY c.queue_key, c.id LIMIT CASE WHEN tier.tier = 0 THEN {{window}} END) c
        WHERE {_IS_NEW_TO_THEM}
        ORDER BY c.queue_key, c.id LIMIT 8) head
    WHERE (routes.lang = '' OR %(languages)s::text[] = '{{{{}}}}' OR routes.lang = ANY(%(languages)s::text[]))
      AND (routes.skill = '' OR %(skills)s::text[] = '{{{{}}}}' OR routes.skill = ANY(%(skills)s::text[]))
), free AS (
    SELECT c.id FROM annotation_comparison c JOIN first ON first.id = c.id
    WHERE {_IS_OPEN}
    ORDER BY CASE WHEN first.tier = 1 AND %(random)s THEN 2 ELSE first.tier END, first.queue_key, c.id
    LIMIT 1 FOR NO KEY UPDATE OF c {{locked}}
)"""

# One row at most goes from step to step; as scalars they are found by key, whatever the planner makes of the tables.
# What is shown on which side is drawn once and stored.
_WORK = """
taken AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count + 1 WHERE c.id = (SELECT id FROM free)
    RETURNING c.id, c.response_count
)"""
_NAMED = "taken AS (SELECT c.id, c.response_count FROM annotation_comparison c WHERE c.id = %(comparison)s)"
_DRAWN = """
drawn AS (
    SELECT taken.id, random() < 0.5 AS a_on_left, (
        SELECT array_agg(position ORDER BY random()) FROM generate_series(0, taken.response_count - 1) position
        WHERE taken.response_count > 2) AS display_order
    FROM taken
)"""
_REPEATED = f"""
drawn AS (
    SELECT c.id, NOT judged.a_shown_on_left AS a_on_left, (
        SELECT array_agg(position ORDER BY place DESC)
        FROM unnest(judged.display_order) WITH ORDINALITY AS shown (position, place)) AS display_order
    FROM (
        SELECT done.comparison_id, done.submitted_at, done.a_shown_on_left, done.display_order
        FROM annotation_assignment done
        WHERE done.annotator_id = %(annotator)s AND done.project_id = %(project)s
          AND done.status = 'submitted' AND done.kind = 'work'
        ORDER BY done.submitted_at DESC OFFSET {serving.REPEAT_AFTER}) judged
    JOIN annotation_comparison c ON c.id = judged.comparison_id AND NOT c.is_gold AND NOT c.is_withdrawn
    WHERE NOT EXISTS (
        SELECT 1 FROM annotation_assignment again
        WHERE again.comparison_id = c.id AND again.annotator_id = %(annotator)s AND again.round = 1
          AND again.status <> 'expired' OFFSET 0)
    ORDER BY judged.submitted_at DESC LIMIT 1
)"""
_LEASE = f"""
made AS (
    INSERT INTO annotation_assignment (
        public_id, comparison_id, annotator_id, project_id, status, kind, round, a_shown_on_left, display_order, slot,
        holds_place, skip_reason, leased_at, lease_expires_at)
    SELECT gen_random_uuid(), drawn.id, %(annotator)s, %(project)s, 'leased', %(kind)s::text, %(round)s,
           coalesce(array_position(drawn.display_order, 0) < array_position(drawn.display_order, 1), drawn.a_on_left),
           drawn.display_order, %(slot)s, %(kind)s::text = 'work', '', clock_timestamp(), %(expires)s
    FROM drawn
    ON CONFLICT (comparison_id, annotator_id, round) DO UPDATE
       SET status = 'leased', kind = excluded.kind, slot = excluded.slot, holds_place = excluded.holds_place,
           leased_at = excluded.leased_at, lease_expires_at = excluded.lease_expires_at
    RETURNING *
), counted AS (
    UPDATE annotation_membership SET served_count = served_count + 1
    WHERE id = %(membership)s AND %(kind)s::text <> 'qualification' AND EXISTS (SELECT 1 FROM made)
), noted AS (
    INSERT INTO annotation_event (kind, project_id, user_id, comparison_id, assignment_id, data)
    SELECT 'lease', project_id, %(user)s, comparison_id, id, jsonb_build_object('for', kind) FROM made
)
SELECT {WITH_TEXTS} FROM made a {JOIN_TEXTS.format(comparison="(SELECT comparison_id FROM made)")}
"""


def _statement(*parts: str, recursive: bool = False) -> Statement:
    return Statement(f"WITH {'RECURSIVE ' if recursive else ''}" + ", ".join(parts))


_CLAIM_ANY, _CLAIM_ANY_WAITING = (
    _statement(_FROM_ALL.format(in_window=window, locked=locked), _WORK, _DRAWN, _LEASE)
    for window, locked in ((_IN_WINDOW, "SKIP LOCKED"), ("", ""))
)
_CLAIM_ROUTED, _CLAIM_ROUTED_WAITING = (
    _statement(_FROM_ROUTES.format(window=window, locked=locked), _WORK, _DRAWN, _LEASE, recursive=True)
    for window, locked in ((PARTLY_JUDGED_WINDOW, "SKIP LOCKED"), ("NULL::int", ""))
)
_CLAIM_NAMED = _statement(_NAMED, _DRAWN, _LEASE)
_CLAIM_REPEAT = _statement(_REPEATED, _LEASE)


def claim_assignments(*, annotator: Annotator, project: Project, known: Collection[UUID] = ()) -> list[Assignment]:
    """The member's leased comparisons, oldest first, topped up to two where the project has something for them.

    The leases that are held already are renewed. `known` are on the screen already: held on to and not given back.
    Two people never get the same place: the free comparison is found, locked and counted in one statement, which
    passes over rows that somebody else is claiming at this moment. Who is no member holds nothing and gets nothing.
    """
    with transaction.atomic():
        seat = take_seat(annotator, project_id=project.pk)
        if seat is None:
            return []
        desk = assignments_on_desk(annotator, project_id=project.pk)
        shown = hand_out(seat, desk, known)
    if not shown and not desk:
        # What was passed over may have a second place free: wait for it rather than tell somebody to go home. In a
        # transaction of its own, which holds no other comparison. Where nothing is free this waits for nobody.
        with transaction.atomic():
            if seat := take_seat(annotator, project_id=project.pk):
                shown = hand_out(seat, [], known, is_waiting=True)
    return shown


def hand_out(
    seat: Seat, desk: Iterable[Assignment], known: Collection[UUID] = (), *, is_waiting: bool = False
) -> list[Assignment]:
    """Renew what lies on a person's desk, add what may come to it, and give all that they do not know yet, with texts.

    Call it in the transaction that took the seat and looked at the desk.
    """
    desk = list(desk)
    _renew(seat, desk)
    shown = read_texts(seat, [assignment.pk for assignment in desk if assignment.public_id not in known])
    taken = {assignment.slot for assignment in desk}
    if seat.project.is_open:
        for slot in range(LEASE_SLOTS):
            if slot not in taken:
                assignment = _hand_out_one(seat, slot, is_waiting=is_waiting)
                if assignment is None:
                    break
                shown.append(assignment)
    return shown


def _hand_out_one(seat: Seat, slot: int, *, is_waiting: bool) -> Assignment | None:
    if seat.membership.qualification == QualificationState.RUNNING:
        comparison_id = qualification_item(seat.annotator, seat.project)
        if comparison_id is not None:
            return _lease(_CLAIM_NAMED, seat, slot, AssignmentKind.QUALIFICATION, comparison=comparison_id)
        # That there is nothing may have ended the round.
        seat.membership.refresh_from_db(fields=["qualification"])
    if seat.membership.qualification in (QualificationState.RUNNING, QualificationState.FAILED):
        return None
    return _hand_out_measure(seat, slot) or _hand_out_work(seat, slot, is_waiting=is_waiting)


def _hand_out_measure(seat: Seat, slot: int) -> Assignment | None:
    """A gold item or a repeat, where one is due and there is one."""
    due = seat.project, seat.annotator.pk, seat.membership.served_count
    if serving.is_gold_due(*due):
        comparison_id = gold_item(seat.annotator, seat.project)
        if comparison_id is not None:
            return _lease(_CLAIM_NAMED, seat, slot, AssignmentKind.GOLD, comparison=comparison_id)
    if serving.is_repeat_due(*due):
        return _lease(_CLAIM_REPEAT, seat, slot, AssignmentKind.REPEAT)
    return None


def _hand_out_work(seat: Seat, slot: int, *, is_waiting: bool) -> Assignment | None:
    membership = seat.membership
    values = {"random": serving.is_random_due(membership.served_count)}
    if not membership.languages and not membership.skills:
        statement = _CLAIM_ANY_WAITING if is_waiting else _CLAIM_ANY
    else:
        statement = _CLAIM_ROUTED_WAITING if is_waiting else _CLAIM_ROUTED
        values |= {"languages": membership.languages, "skills": membership.skills}
    return _lease(statement, seat, slot, AssignmentKind.WORK, **values)


def _lease(statement: Statement, seat: Seat, slot: int, kind: AssignmentKind, **more: Any) -> Assignment | None:
    values = {
        "annotator": seat.annotator.pk,
        "user": seat.annotator.user_id,
        "project": seat.project.pk,
        "membership": seat.membership.pk,
        "slot": slot,
        "kind": kind.value,
        "round": 1 if kind == AssignmentKind.REPEAT else 0,
        "expires": lease_end(),
    }
    rows = run(statement, values | more)
    if not rows:
        return None
    if kind != AssignmentKind.QUALIFICATION:
        seat.membership.served_count += 1
    return with_texts(rows[0], seat)


# ── Keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


def lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)


def _renew(seat: Seat, desk: Iterable[Assignment]) -> None:
    ends = lease_end()
    # Not at every vote of somebody quick: they change one row less, and the page renews once a minute by itself.
    soon = ends - timedelta(seconds=60)
    running_out = [assignment for assignment in desk if assignment.lease_expires_at < soon]
    if running_out:
        Assignment.objects.filter(pk__in=[assignment.pk for assignment in running_out]).update(lease_expires_at=ends)
    for assignment in running_out:
        assignment.lease_expires_at = ends


def renew_leases(*, annotator: Annotator, project: Project) -> datetime | None:
    """Prolong what the annotator holds; gives the new end, or None where nothing is held any more."""
    ends = lease_end()
    held = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.LEASED)
    return ends if held.update(lease_expires_at=ends) else None


# ── Giving back ──────────────────────────────────────────────────────────────────────────────────────────────────

_GIVE_BACK = """
WITH gone AS (
    SELECT a.id, a.holds_place FROM annotation_assignment a WHERE a.status = 'leased' AND {which}
    FOR NO KEY UPDATE OF a SKIP LOCKED
), ended AS (
    UPDATE annotation_assignment a SET status = 'expired', holds_place = false FROM gone WHERE a.id = gone.id
    RETURNING a.id, a.comparison_id, a.annotator_id, a.project_id, gone.holds_place
), counts AS (
    SELECT comparison_id, count(*) AS places FROM ended WHERE holds_place GROUP BY comparison_id
), locked AS (  -- in order, so that two who give back wait for each other in one direction only
    SELECT c.id FROM annotation_comparison c JOIN counts ON counts.comparison_id = c.id
    ORDER BY c.id FOR NO KEY UPDATE OF c
), returned AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count - counts.places
    FROM counts JOIN locked ON locked.id = counts.comparison_id WHERE c.id = counts.comparison_id
), noted AS (
    INSERT INTO annotation_event (kind, project_id, user_id, comparison_id, assignment_id, data)
    SELECT 'expire', ended.project_id, n.user_id, ended.comparison_id, ended.id, jsonb_build_object('why', '{why}')
    FROM ended JOIN annotation_annotator n ON n.id = ended.annotator_id
)
SELECT count(*) FROM ended
"""
_RAN_OUT = Statement(_GIVE_BACK.format(which="a.lease_expires_at < now()", why="ran out"))
# Whoever leaves gives back at once (services.people); this is for accounts that are switched off elsewhere.
_OF_NOBODY = Statement(
    _GIVE_BACK.format(
        which="""NOT EXISTS (
        SELECT 1 FROM annotation_annotator n
        JOIN auth_user u ON u.id = n.user_id AND u.is_active
        JOIN annotation_membership m ON m.user_id = u.id AND m.project_id = a.project_id
        WHERE n.id = a.annotator_id)""",
        why="left",
    )
)
_RELEASED = Statement(
    _GIVE_BACK.format(
        which="a.annotator_id = %(annotator)s AND (%(project)s::bigint IS NULL OR a.project_id = %(project)s)",
        why="released",
    )
)


def expire_assignments() -> int:
    """Give back every place whose lease has run out or whose holder may not judge any more; gives how many."""
    with transaction.atomic():
        return run(_RAN_OUT, {})[0][0] + run(_OF_NOBODY, {})[0][0]


def release_assignments(*, annotator: Annotator, project: Project | None = None) -> int:
    """Give back what an annotator holds, everywhere or in one project, as when they leave; gives how many."""
    with transaction.atomic():
        return run(_RELEASED, {"annotator": annotator.pk, "project": project.pk if project else None})[0][0]
