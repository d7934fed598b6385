"""Links that make whoever follows them a member. The link itself is shown once; only its sha256 is stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import ConflictError, DomainError
from annotation.models import EventKind, Invitation, Membership, Project, Role
from annotation.services.journal import record_event
from annotation.services.people import ROLE_RANK, add_member, change_member


def create_invitation(
    project: Project,
    *,
    by: User,
    role: str = Role.ANNOTATOR,
    email: str = "",
    languages: Sequence[str] = (),
    skills: Sequence[str] = (),
    days: int = 7,
) -> tuple[Invitation, str]:
    """A new invitation and its secret, which cannot be had again."""
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        invitation = Invitation.objects.create(
            project=project,
            role=Role(role),
            email=email,
            languages=list(languages),
            skills=list(skills),
            token_sha256=_digest(secret),
            created_by=by,
            expires_at=timezone.now() + timedelta(days=days),
        )
        record_event(
            EventKind.MEMBER, project=project, user=by, action="invited", invitation=invitation.pk, role=str(role)
        )
    return invitation, secret


def revoke_invitation(invitation: Invitation, *, by: User) -> bool:
    """Make a link worthless; False where it had been used or withdrawn before."""
    open_ones = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
    with transaction.atomic():
        if not open_ones.update(revoked_at=timezone.now()):
            return False
        record_event(
            EventKind.MEMBER, project=invitation.project_id, user=by, action="revoked", invitation=invitation.pk
        )
    return True


def find_invitation(secret: str) -> Invitation:
    """The invitation behind a link. Raises DomainError with what to do where it is unknown, used, old or withdrawn."""
    invitation = (
        Invitation.objects.filter(token_sha256=_digest(secret)).select_related("project", "created_by").first()
    )
    if invitation is None:
        raise DomainError(_("No invitation belongs to this link. Check that it was copied whole, or ask for another."))
    _refuse_spent(invitation)
    return invitation


def accept_invitation(secret: str, user: User) -> Membership:
    """Make the user a member with the invitation's role, languages and skills. One invitation serves one person.

    A member who is invited to a higher role gets it. Raises DomainError as `find_invitation` does, and ConflictError
    where the user has this role already: the link then stays good for somebody else.
    """
    with transaction.atomic():
        invitation = find_invitation(secret)
        invitation = Invitation.objects.select_for_update(of=("self",)).get(pk=invitation.pk)
        _refuse_spent(invitation)  # two people may follow one link at the same moment
        project = invitation.project
        role = Role(invitation.role)
        held = Membership.objects.filter(project=project, user=user).values_list("role", flat=True).first()
        if held is None:
            membership = add_member(
                project, user, role=role, languages=invitation.languages, skills=invitation.skills, by=user
            )
        elif ROLE_RANK[Role(held)] < ROLE_RANK[role]:
            membership = change_member(project, user, role=role, by=user)
        else:
            raise ConflictError(
                _("You are in %(project)s already. The link was not used up; pass it on.") % {"project": project.name}
            )
        invitation.accepted_by = user
        invitation.accepted_at = timezone.now()
        invitation.save(update_fields=["accepted_by", "accepted_at"])
        record_event(EventKind.MEMBER, project=project, user=user, action="accepted", invitation=invitation.pk)
    return membership


def join_with_new_account(secret: str, *, username: str, password: str) -> User:
    """Make an account and accept the invitation with it, or do neither. The password has been checked before."""
    try:
        with transaction.atomic():
            user = User.objects.create_user(username, password=password)
            accept_invitation(secret, user)
    except IntegrityError as error:
        raise DomainError(_("Somebody took that name just now. Choose another one.")) from error
    return user


def _refuse_spent(invitation: Invitation) -> None:
    if invitation.revoked_at:
        raise DomainError(_("This invitation was withdrawn. Ask whoever sent it for another one."))
    if invitation.accepted_at:
        raise DomainError(
            _("This invitation has been used. If it was you, sign in; otherwise ask whoever sent it for another one.")
        )
    if invitation.expires_at <= timezone.now():
        raise DomainError(_("This invitation has expired. Ask whoever sent it for another one."))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
