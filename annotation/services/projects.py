"""Making a project and changing how it works, with every change in the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import current_app
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from annotation.errors import ConflictError, DomainError
from annotation.models import EventKind, GuidelineVersion, Judgment, Project, QueueTier
from annotation.protocol import Protocol
from annotation.services.journal import record_event
from annotation.services.places import reorder_queue

SETTINGS = (
    "name",
    "is_open",
    "protocol",
    "judgments_per_comparison",
    "overlap_share",
    "overlap_count",
    "escalate_to",
    "gold_every",
    "gold_every_at_first",
    "repeat_share",
    "qualification_count",
    "qualification_pass_mark",
    "topic_batches",
)
"""What `update_settings` takes; guidelines have versions of their own."""
LARGEST = {
    "judgments_per_comparison": 100,
    "overlap_count": 100,
    "escalate_to": 100,
    "gold_every": 1000,
    "gold_every_at_first": 1000,
    "qualification_count": 200,
}


def create_project(
    *,
    slug: str,
    name: str,
    guidelines: str = "",
    judgments_per_comparison: int = 1,
    protocol: dict[str, Any] | None = None,
    by: User | None = None,
) -> Project:
    """Make a project, or give the one that has this slug."""
    with transaction.atomic():
        project, made = Project.objects.get_or_create(
            slug=slug,
            defaults={
                "name": name,
                "guidelines": guidelines,
                "guideline_version": 1 if guidelines else 0,
                "judgments_per_comparison": judgments_per_comparison,
                "protocol": Protocol.from_json(protocol or {}).to_json(),
            },
        )
        if made:
            Protocol.of(project).check_sense()
            _check_numbers(project)
            if guidelines:
                GuidelineVersion.objects.create(project=project, version=1, text=guidelines, created_by=by)
            record_event(EventKind.SETTINGS, project=project, user=by, action="created", name=name)
    return project


def update_settings(project: Project, by: User | None, **changes: Any) -> dict[str, Any]:
    """Change settings; gives those that are different now, and the journal keeps old and new.

    `protocol` is a Protocol or its JSON. Raises DomainError with a sentence where a value cannot be, and where it
    would change what judgments that are stored already mean.
    """
    if unknown := set(changes) - set(SETTINGS):
        raise DomainError(
            "settings: "
            + _("“%(name)s” is unknown; known are %(known)s.")
            % {"name": sorted(unknown)[0], "known": ", ".join(SETTINGS)}
        )
    if "protocol" in changes:
        given = changes["protocol"]
        protocol = given if isinstance(given, Protocol) else Protocol.from_json(given)
        protocol.check()
        changes["protocol"] = protocol.to_json()
    with transaction.atomic():
        locked = Project.objects.select_for_update().get(pk=project.pk)
        changed = {name: value for name, value in changes.items() if value != getattr(locked, name)}
        if not changed:
            return {}
        if "protocol" in changed:
            asked = Protocol.from_json(changed["protocol"])
            asked.check_sense()
            _refuse_new_meanings(locked, Protocol.readable_part(locked.protocol), asked)
        before = {name: getattr(locked, name) for name in changed}
        for name, value in changed.items():
            setattr(locked, name, value)
        _check_numbers(locked)
        locked.save(update_fields=list(changed))
        record_event(EventKind.SETTINGS, project=locked, user=by, action="changed", before=before, after=changed)
        if "topic_batches" in changed:
            _hand_over("reorder_queue", reorder_queue, locked)
    for name, value in changed.items():
        setattr(project, name, value)
    return changed


def _hand_over(task: str, work: Callable[..., Any], project: Project, **options: Any) -> None:
    """Have a worker do, once this is committed, what takes a while at a million comparisons; or do it, without one."""

    def send() -> None:
        try:
            current_app.send_task(f"annotation.tasks.{task}", [project.pk], options)
        except OperationalError:
            work(project, **options)

    transaction.on_commit(send)


def ask_of_existing(project: Project, *, before: int, by: User | None) -> None:
    """Have the comparisons that are there judged by as many people as new ones, where `before` were asked for.

    Those that more people were drawn for keep them, and nothing falls below what is judged or being judged.
    """
    with transaction.atomic():
        count = project.judgments_per_comparison
        record_event(
            EventKind.SETTINGS, project=project, user=by, action="asked of existing", before=before, after=count
        )
        _hand_over("change_required_counts", change_required_counts, project, before=before, count=count)


_REQUIRED_COUNTS = """
UPDATE annotation_comparison
SET required_count = greatest(%(count)s, assigned_count),
    tier = CASE WHEN assigned_count > 0 THEN %(partly)s ELSE tier END
WHERE project_id = %(project)s AND NOT is_gold AND (required_count = %(before)s OR required_count < %(count)s)
  AND required_count <> greatest(%(count)s, assigned_count) AND NOT (is_withdrawn AND required_count = 0)
  AND NOT EXISTS (SELECT 1 FROM annotation_turn t WHERE t.comparison_id = annotation_comparison.id)
"""
# A turn of a conversation is for the person who holds it, and a withdrawn pair without places for a model.


def change_required_counts(project: Project, *, before: int, count: int) -> int:
    """The work behind `ask_of_existing`; gives how many comparisons changed."""
    values = {"project": project.pk, "before": before, "count": count, "partly": QueueTier.PARTLY_JUDGED}
    with connection.cursor() as cursor:
        cursor.execute(_REQUIRED_COUNTS, values)
        return cursor.rowcount


def _refuse_new_meanings(project: Project, before: Protocol, after: Protocol) -> None:
    """A stored −2 must go on meaning what it meant when somebody chose it."""
    scores = {aspect.name: (aspect.low, aspect.high) for aspect in before.aspects}
    rescaled = [
        aspect.label
        for aspect in after.aspects
        if aspect.name in scores and scores[aspect.name] != (aspect.low, aspect.high)
    ]
    if before.scale == after.scale and not rescaled:
        return
    if not Judgment.objects.filter(comparison__project=project).exists():
        return
    if before.scale != after.scale:
        raise DomainError(
            _(
                "This project has judgments on its present scale, and mixing two scales would make every figure "
                "wrong. Nothing was changed. Start a new project for the other scale; the prompts can be imported "
                "there."
            )
        )
    raise DomainError(
        _(
            "The scores of %(aspects)s that are stored already were given on the present scale. Nothing was changed. "
            "Add an aspect with another name instead; the old scores stay."
        )
        % {"aspects": ", ".join(rescaled)}
    )


def _check_numbers(project: Project) -> None:
    """What Postgres would refuse without a sentence, and what would work but not as anybody means it."""
    if not project.name.strip():
        raise DomainError(_("A project needs a name."))
    for name, most in LARGEST.items():
        if not 0 <= getattr(project, name) <= most:
            raise DomainError(
                _("%(name)s must be between 0 and %(most)s, not %(given)s.")
                % {"name": name, "most": most, "given": getattr(project, name)}
            )
    if project.judgments_per_comparison < 1:
        raise DomainError(_("At least one person must judge each comparison."))
    if project.overlap_share and project.overlap_count <= project.judgments_per_comparison:
        raise DomainError(
            _("The random share must be judged by more people than the rest, or it measures nothing: more than %(k)s.")
            % {"k": project.judgments_per_comparison}
        )
    if project.escalate_to and project.escalate_to <= max(3, project.judgments_per_comparison):
        raise DomainError(
            _("Escalation begins when three judgments disagree, so it must go to at least %(least)s; 0 turns it off.")
            % {"least": max(3, project.judgments_per_comparison) + 1}
        )
    for share in (project.overlap_share, project.repeat_share, project.qualification_pass_mark):
        if not 0 <= share <= 1:
            raise DomainError(_("A share is between 0 and 100 %."))


def edit_guidelines(project: Project, text: str, by: User | None, *, based_on: int | None = None) -> int:
    """Put another wording in force; gives its version. The same wording again makes no version.

    based_on: the version that the editor started from. Raises ConflictError where another one came in force meanwhile.
    """
    text = text.replace("\r\n", "\n").strip()
    with transaction.atomic():
        locked = Project.objects.select_for_update().get(pk=project.pk)
        if based_on is not None and based_on != locked.guideline_version:
            raise ConflictError(
                _(
                    "Version %(version)s came in force while you were writing. Your text is still here: compare it "
                    "with that version, and save again to put yours in its place."
                )
                % {"version": locked.guideline_version}
            )
        if text != locked.guidelines:
            locked.guideline_version += 1
            locked.guidelines = text
            GuidelineVersion.objects.create(project=locked, version=locked.guideline_version, text=text, created_by=by)
            locked.save(update_fields=["guidelines", "guideline_version"])
            record_event(
                EventKind.SETTINGS, project=locked, user=by, action="guidelines", version=locked.guideline_version
            )
    project.guidelines, project.guideline_version = locked.guidelines, locked.guideline_version
    return locked.guideline_version
