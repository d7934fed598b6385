"""The people of a project: who is in it, in which role, and the links by which others join."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from annotation import services
from annotation.access import MemberRequest, require_role
from annotation.models import Annotator, Assignment, Invitation, Membership, Project, QualificationState, Role
from annotation.pace import work_by_person
from annotation.pages.forms import AddMembersForm, InvitationForm, PlaceForm
from annotation.services import DomainError
from annotation.services.tokens import unlock_sign_in
from annotation.sign_in import locks

INVITATIONS_SHOWN = 50


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def members(request: MemberRequest, project: Project) -> HttpResponse:
    form = AddMembersForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            added = services.add_members(
                project,
                data["usernames"],
                role=data["role"],
                languages=data["languages"],
                skills=data["skills"],
                by=request.user,
            )
        except DomainError as refused:
            form.add_error("usernames", str(refused))
        else:
            messages.success(request, _added(added, len(data["usernames"]) - added))
            return redirect("project_people", slug=project.slug)
    return _members_page(request, project, form=form, status=422 if form.errors else 200)


def _added(added: int, there: int) -> str:
    sentence = ngettext("%(count)s person added.", "%(count)s people added.", added) % {"count": added}
    if there:
        known = ngettext("%(count)s was a member already.", "%(count)s were members already.", there)
        sentence += " " + known % {"count": there}
    return sentence


def _members_page(
    request: MemberRequest,
    project: Project,
    *,
    form: AddMembersForm | None = None,
    invite: InvitationForm | None = None,
    link: str = "",
    status: int = 200,
) -> HttpResponse:
    rows = list(Membership.objects.filter(project=project).select_related("user").order_by("user__username"))
    done, as_of = work_by_person(project)
    locked = {lock.username for lock in locks([row.user.username for row in rows])}
    known = {row.user_id for row in rows}
    others = User.objects.filter(is_active=True).exclude(pk__in=known).order_by("username")
    context = {
        "project": project,
        "rows": [(row, done.get(row.user_id), row.user.username in locked) for row in rows],
        "as_of": as_of,
        "form": form or AddMembersForm(),
        "invite": invite or InvitationForm(),
        "link": link,
        # Whoever runs the site knows its accounts; an admin of one project must know the names.
        "others": list(others.values_list("username", flat=True)[:30]) if request.user.is_staff else [],
        "invitations": Invitation.objects.filter(project=project)
        .select_related("created_by", "accepted_by")
        .order_by("-pk")[:INVITATIONS_SHOWN],
        "now": timezone.now(),
    }
    return render(request, "people/members.html", context, status=status)


@require_role(Role.ADMIN)
@require_POST
def invite(request: MemberRequest, project: Project) -> HttpResponse:
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return _members_page(request, project, invite=form, status=422)
    _invitation, secret = services.create_invitation(project, by=request.user, **form.cleaned_data)
    # The link is in this one answer and nowhere else, so there is no redirect after the POST.
    return _members_page(request, project, link=request.build_absolute_uri(reverse("join", args=[secret])))


@require_role(Role.ADMIN)
@require_POST
def invitation_revoke(request: MemberRequest, project: Project, invitation_id: int) -> HttpResponse:
    invitation = get_object_or_404(Invitation, pk=invitation_id, project=project)
    if services.revoke_invitation(invitation, by=request.user):
        messages.success(request, _("The invitation is withdrawn; its link leads nowhere now."))
    else:
        messages.warning(request, _("That invitation had been used or withdrawn before."))
    return redirect("project_people", slug=project.slug)


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def member(request: MemberRequest, project: Project, user_id: int) -> HttpResponse:
    row = get_object_or_404(Membership.objects.select_related("user"), project=project, user=user_id)
    now_held = {"role": row.role, "languages": row.languages, "skills": row.skills}
    form = PlaceForm(request.POST or None, initial=now_held)
    if request.method == "POST" and form.is_valid():
        services.change_member(project, row.user, by=request.user, **form.cleaned_data)
        messages.success(request, _("%(name)s’s place is changed.") % {"name": row.user.username})
        still_admin = (
            request.user.is_staff or row.user_id != request.user.pk or form.cleaned_data["role"] == Role.ADMIN
        )
        return redirect("project_people", slug=project.slug) if still_admin else redirect("home")
    annotator = Annotator.objects.filter(user=row.user_id).first()
    held = Assignment.objects.filter(annotator=annotator, project=project, status="leased").count() if annotator else 0
    done, as_of = work_by_person(project)
    context = {
        "project": project,
        "member": row,
        "annotator": annotator,
        "form": form,
        "work": done.get(row.user_id),
        "as_of": as_of,
        "held": held,
        "locks": locks([row.user.username]),
        "states": QualificationState,
    }
    return render(request, "people/member.html", context, status=422 if form.errors else 200)


@require_role(Role.ADMIN)
@require_POST
def member_remove(request: MemberRequest, project: Project, user_id: int) -> HttpResponse:
    user = get_object_or_404(User, pk=user_id)
    returned = services.remove_member(project, user, by=request.user)
    sentence = _("%(name)s is no longer in this project; what they judged stays.") % {"name": user.username}
    if returned:
        sentence += " " + ngettext(
            "%(count)s comparison went back to the others.", "%(count)s comparisons went back to the others.", returned
        ) % {"count": returned}
    messages.success(request, sentence)
    leaves = user.pk == request.user.pk and not request.user.is_staff
    return redirect("home") if leaves else redirect("project_people", slug=project.slug)


@require_role(Role.ADMIN)
@require_POST
def member_qualification(request: MemberRequest, project: Project, user_id: int) -> HttpResponse:
    row = get_object_or_404(Membership.objects.select_related("user"), project=project, user=user_id)
    state = request.POST.get("state", "")
    if state in QualificationState.values:
        services.set_qualification(project, row.user, state, by=request.user)
        messages.success(request, _("%(name)s’s qualification is changed.") % {"name": row.user.username})
    return redirect("project_member", slug=project.slug, user_id=user_id)


@require_role(Role.ADMIN)
@require_POST
def member_unlock(request: MemberRequest, project: Project, user_id: int) -> HttpResponse:
    row = get_object_or_404(Membership.objects.select_related("user"), project=project, user=user_id)
    unlock_sign_in(row.user, by=request.user, project=project)
    messages.success(request, _("%(name)s may try to sign in again at once.") % {"name": row.user.username})
    return redirect("project_member", slug=project.slug, user_id=user_id)
