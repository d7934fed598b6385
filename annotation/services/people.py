"""Who works where: members of a project, their roles, and what they give back when they leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import (
    Annotator,
    EventKind,
    Membership,
    Project,
    QualificationState,
    RewriteStatus,
    RewriteTask,
    Role,
)
from annotation.services.journal import record_event
from annotation.services.queue import release_assignments
from annotation.services.rating_conversations import give_back_conversations
from annotation.services.studies import release_ratings

ROLE_RANK = {Role.ANNOTATOR: 1, Role.REVIEWER: 2, Role.ADMIN: 3}


def annotator_for(user: User) -> Annotator:
    """The annotator that stands for a signed-in user, made on first need."""
    try:
        return user.annotator
    except Annotator.DoesNotExist:
        annotator, _made = Annotator.objects.get_or_create(user=user, defaults={"name": user.get_username()})
        return annotator


def add_member(
    project: Project,
    user: User,
    *,
    role: str | None = None,
    languages: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    by: User | None = None,
) -> Membership:
    """Give a user a place in the project, as an annotator where no role is given.

    Where they have a place already, what is given is changed in it.
    """
    new_role = Role(role or Role.ANNOTATOR)
    qualifies = project.qualification_count and new_role == Role.ANNOTATOR
    with transaction.atomic():
        membership, made = Membership.objects.get_or_create(
            project=project,
            user=user,
            defaults={
                "role": new_role,
                "languages": list(languages or ()),
                "skills": list(skills or ()),
                "qualification": QualificationState.RUNNING if qualifies else QualificationState.NOT_NEEDED,
            },
        )
        if not made:
            return change_member(project, user, role=role, languages=languages, skills=skills, by=by)
        record_event(
            EventKind.MEMBER, project=project, user=by, action="added", member=user.get_username(), role=str(new_role)
        )
    return membership


def add_members(
    project: Project,
    usernames: Iterable[str],
    *,
    role: str = Role.ANNOTATOR,
    languages: Sequence[str] = (),
    skills: Sequence[str] = (),
    by: User | None = None,
) -> int:
    """Give places to accounts by their names, all or none; gives how many are new.

    People who are members already are left as they are. Raises DomainError that names every account that is missing or
    switched off.
    """
    names = list(dict.fromkeys(usernames))
    accounts = {user.username: user for user in User.objects.filter(username__in=names, is_active=True)}
    if missing := [name for name in names if name not in accounts]:
        raise DomainError(
            _("Nobody was added: there is no active account named %(names)s. Invite them with a link instead.")
            % {"names": ", ".join(missing)}
        )
    with transaction.atomic():
        there = set(
            Membership.objects.filter(project=project, user__username__in=names).values_list(
                "user__username", flat=True
            )
        )
        new = [accounts[name] for name in names if name not in there]
        for user in new:
            add_member(project, user, role=role, languages=languages, skills=skills, by=by)
    return len(new)


def change_member(
    project: Project,
    user: User,
    *,
    role: str | None = None,
    languages: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    by: User | None = None,
) -> Membership:
    """Change what a member may do and what is routed to them; whoever loses a role gives back what they hold."""
    with transaction.atomic():
        membership = _lock_membership(project, user)
        before = Role(membership.role)
        given = {
            "role": None if role is None else Role(role),
            "languages": None if languages is None else list(languages),
            "skills": None if skills is None else list(skills),
        }
        changed = {
            name: value for name, value in given.items() if value is not None and value != getattr(membership, name)
        }
        if not changed:
            return membership
        for name, value in changed.items():
            setattr(membership, name, value)
        membership.save(update_fields=list(changed))
        if ROLE_RANK[Role(membership.role)] < ROLE_RANK[before]:
            give_back(project, user)
        record_event(
            EventKind.MEMBER, project=project, user=by, action="changed", member=user.get_username(), to=changed
        )
    return membership


def set_qualification(project: Project, user: User, state: str, *, by: User | None = None) -> Membership:
    """Overrule the qualification round: let somebody work, make them wait, or let them try again from the start."""
    with transaction.atomic():
        membership = _lock_membership(project, user)
        membership.qualification = QualificationState(state)
        if membership.qualification == QualificationState.RUNNING:
            membership.qualification_tries = 0
        membership.save(update_fields=["qualification", "qualification_tries"])
        record_event(
            EventKind.MEMBER,
            project=project,
            user=by,
            action="qualification",
            member=user.get_username(),
            state=str(membership.qualification),
        )
    return membership


def remove_member(project: Project, user: User, *, by: User | None = None) -> int:
    """Take a user off the project and give back what they hold there; gives how many. Their judgments stay."""
    with transaction.atomic():
        removed, _per_table = Membership.objects.filter(project=project, user=user.pk).delete()
        returned = give_back(project, user)
        if removed:
            record_event(EventKind.MEMBER, project=project, user=by, action="removed", member=user.get_username())
    return returned


def deactivate_user(user: User, *, by: User | None = None) -> int:
    """Switch an account off: it is signed out at its next request, and what it holds anywhere goes back."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(is_active=False)
        returned = give_back(None, user)
        record_event(EventKind.MEMBER, user=by, action="deactivated", member=user.get_username())
    user.is_active = False
    return returned


def give_back(project: Project | None, user: User) -> int:
    """Return whatever a user holds, to judge, to rewrite or to rate, in one project or everywhere."""
    annotator = Annotator.objects.filter(user=user.pk).first()
    if annotator is None:
        return 0
    rewrites = RewriteTask.objects.filter(annotator=annotator, status=RewriteStatus.LEASED)
    if project is not None:
        rewrites = rewrites.filter(project=project)
    with transaction.atomic():
        returned = rewrites.update(status=RewriteStatus.OPEN, annotator=None, lease_expires_at=None)
        returned += give_back_conversations(annotator, project) + release_ratings(annotator, project)
        return returned + release_assignments(annotator=annotator, project=project)


def _lock_membership(project: Project, user: User) -> Membership:
    membership = Membership.objects.select_for_update().filter(project=project, user=user.pk).first()
    if membership is None:
        raise DomainError(_("%(name)s is not a member of this project any more.") % {"name": user.get_username()})
    return membership
