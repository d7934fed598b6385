"""The queue: who gets which comparison next, for how long, and how it comes back.

An assignment's life: leased → submitted | skipped | expired; skipped and expired ones can be leased again by the same
person, and a submitted one takes corrections. `Comparison.assigned_count` always equals the number of its assignments
that hold a place.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from annotation.models import Annotator, Assignment, AssignmentStatus, Project

LEASE_SLOTS = 2  # the comparison on the screen and the one prefetched behind it


_CLAIM = """
WITH free AS (
    SELECT c.id FROM annotation_comparison c
    WHERE c.project_id = %(project)s AND c.assigned_count < c.required_count
      AND NOT c.is_gold AND NOT c.is_withdrawn
      AND NOT EXISTS (
        SELECT 1 FROM annotation_assignment mine
        WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired'
        OFFSET 0)  -- one index look-up a candidate; as a join it reads all that the person ever judged
    ORDER BY c.tier, c.queue_key, c.id
    LIMIT 1
    FOR UPDATE OF c {skip_locked}
), taken AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count + 1 FROM free WHERE c.id = free.id
    RETURNING c.id
)
INSERT INTO annotation_assignment (public_id, comparison_id, annotator_id, project_id, status, kind, round,
                                   a_shown_on_left, slot, holds_place, skip_reason, leased_at, lease_expires_at)
SELECT gen_random_uuid(), taken.id, %(annotator)s, %(project)s, 'leased', 'work', 0, random() < 0.5, %(slot)s,
       true, '', clock_timestamp(), %(expires)s
FROM taken
ON CONFLICT (comparison_id, annotator_id, round) DO UPDATE
   SET status = 'leased', slot = excluded.slot, holds_place = true, leased_at = excluded.leased_at,
       lease_expires_at = excluded.lease_expires_at
RETURNING id
"""


def claim_assignments(*, annotator: Annotator, project: Project) -> list[Assignment]:
    """The annotator's leased comparisons, oldest first, topped up to two where the project has free ones.

    The leases that are held already are renewed. Two people never get the same place: the free comparison is found,
    locked and counted in one statement, which passes over rows that somebody else is claiming at this moment. The
    sides are drawn by Postgres in the same statement and stored.
    """
    with transaction.atomic():
        # One person's tabs take turns; other people are not held up.
        Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        leased = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.LEASED)
        leased.update(lease_expires_at=lease_end())
        slots = set(leased.values_list("slot", flat=True))
        if project.is_open:
            for slot in range(LEASE_SLOTS):
                if slot not in slots and not _claim_one(annotator, project, slot):
                    break
    return list(
        leased.select_related("comparison__prompt", "comparison__response_a", "comparison__response_b").order_by(
            "leased_at", "id"
        )
    )


def _claim_one(annotator: Annotator, project: Project, slot: int) -> bool:
    values: dict[str, Any] = {"project": project.pk, "annotator": annotator.pk, "slot": slot, "expires": lease_end()}
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM.format(skip_locked="SKIP LOCKED"), values)
        if cursor.fetchone():
            return True
        # What was passed over may have a second place free: wait for it rather than tell somebody to go home. Where
        # nothing is free this finds no row and waits for nobody.
        cursor.execute(_CLAIM.format(skip_locked=""), values)
        return cursor.fetchone() is not None


def lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)


def renew_leases(*, annotator: Annotator, project: Project) -> datetime | None:
    """Prolong what the annotator holds; gives the new end, or None where nothing is held any more."""
    ends = lease_end()
    held = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.LEASED)
    return ends if held.update(lease_expires_at=ends) else None


_GIVE_BACK = """
WITH gone AS (
    SELECT id FROM annotation_assignment WHERE status = 'leased' AND {which} FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE annotation_assignment a SET status = 'expired', holds_place = false FROM gone WHERE a.id = gone.id
    RETURNING a.comparison_id
), counts AS (
    SELECT comparison_id, count(*) AS places FROM ended GROUP BY comparison_id
), returned AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count - counts.places
    FROM counts WHERE c.id = counts.comparison_id
)
SELECT count(*) FROM ended
"""


def expire_assignments() -> int:
    """Give back every place whose lease has run out; gives how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK.format(which="lease_expires_at < now()"))
        return cursor.fetchone()[0]


def release_assignments(*, annotator: Annotator, project: Project | None = None) -> int:
    """Give back what an annotator holds, everywhere or in one project, as when they leave; gives how many."""
    which, values = "annotator_id = %s", [annotator.pk]
    if project is not None:
        which, values = f"{which} AND project_id = %s", [annotator.pk, project.pk]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK.format(which=which), values)
        return cursor.fetchone()[0]
