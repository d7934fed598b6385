"""Every write of the annotation side. Each function owns its transaction; nothing else changes these tables."""

from annotation.errors import AssignmentNotFoundError, ConflictError, DomainError
from annotation.services.browse_index import refresh_browse_index
from annotation.services.desk import LEASE_SLOTS
from annotation.services.invitations import (
    accept_invitation,
    create_invitation,
    find_invitation,
    join_with_new_account,
    revoke_invitation,
)
from annotation.services.journal import record_event, record_view
from annotation.services.judging import (
    flag_comparison,
    judge_and_claim,
    skip_assignment,
    submit_judgment,
    undo_assignment,
)
from annotation.services.people import (
    add_member,
    add_members,
    annotator_for,
    change_member,
    deactivate_user,
    give_back,
    progress,
    remove_member,
    set_qualification,
)
from annotation.services.places import reorder_queue, set_uncertainties
from annotation.services.projects import ask_of_existing, create_project, edit_guidelines, update_settings
from annotation.services.queue import (
    claim_assignments,
    expire_assignments,
    release_assignments,
    renew_leases,
)
from annotation.services.rewriting import (
    claim_rewrite,
    count_rewrites,
    drop_rewrite,
    give_back_rewrite,
    queue_rewrite,
    renew_rewrite,
    save_rewrite,
)
from annotation.services.texts import (
    add_prompt,
    add_prompts,
    add_response,
    add_written_response,
    content_sha256,
    create_comparisons,
    create_rankings,
)

__all__ = [
    "LEASE_SLOTS",
    "AssignmentNotFoundError",
    "ConflictError",
    "DomainError",
    "accept_invitation",
    "add_member",
    "add_members",
    "add_prompt",
    "add_prompts",
    "add_response",
    "add_written_response",
    "annotator_for",
    "ask_of_existing",
    "change_member",
    "claim_assignments",
    "claim_rewrite",
    "content_sha256",
    "count_rewrites",
    "create_comparisons",
    "create_invitation",
    "create_project",
    "create_rankings",
    "deactivate_user",
    "drop_rewrite",
    "edit_guidelines",
    "expire_assignments",
    "find_invitation",
    "flag_comparison",
    "give_back",
    "give_back_rewrite",
    "join_with_new_account",
    "judge_and_claim",
    "progress",
    "queue_rewrite",
    "record_event",
    "record_view",
    "refresh_browse_index",
    "release_assignments",
    "remove_member",
    "renew_leases",
    "renew_rewrite",
    "reorder_queue",
    "revoke_invitation",
    "save_rewrite",
    "set_qualification",
    "set_uncertainties",
    "skip_assignment",
    "submit_judgment",
    "undo_assignment",
    "update_settings",
]
