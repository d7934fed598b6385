"""Every write of the annotation side. Each function owns its transaction; nothing else changes these tables."""

from annotation.errors import AssignmentNotFoundError, ConflictError, DomainError
from annotation.services.journal import record_event
from annotation.services.judging import skip_assignment, submit_judgment, undo_assignment
from annotation.services.people import (
    add_member,
    annotator_for,
    create_project,
    progress,
    projects_for,
    remove_member,
)
from annotation.services.queue import (
    LEASE_SLOTS,
    claim_assignments,
    expire_assignments,
    release_assignments,
    renew_leases,
)
from annotation.services.texts import add_prompt, add_prompts, add_response, content_sha256, create_comparisons

__all__ = [
    "LEASE_SLOTS",
    "AssignmentNotFoundError",
    "ConflictError",
    "DomainError",
    "add_member",
    "add_prompt",
    "add_prompts",
    "add_response",
    "annotator_for",
    "claim_assignments",
    "content_sha256",
    "create_comparisons",
    "create_project",
    "expire_assignments",
    "progress",
    "projects_for",
    "record_event",
    "release_assignments",
    "remove_member",
    "renew_leases",
    "skip_assignment",
    "submit_judgment",
    "undo_assignment",
]
