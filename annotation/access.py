"""Who may see what: a role in a project, or staff, who are admins everywhere. docs/people.md has the table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from annotation.models import Membership, Project, Role
from annotation.services.people import ROLE_RANK
from annotation.stored_figures import FiguresNotReadyError

P = ParamSpec("P")


class PersonRequest(HttpRequest):
    """A request of somebody who is signed in."""

    user: User


class MemberRequest(PersonRequest):
    """A request that `require_role` has let in."""

    role: Role
    """What the user is in the project that the page is about; templates show only what this role may open."""


def role_in(user: User | AnonymousUser, project: Project) -> Role | None:
    """The user's role in the project; staff are admins everywhere."""
    if not user.is_authenticated:
        return None
    if user.is_staff:
        return Role.ADMIN
    role = Membership.objects.filter(project=project, user=user).values_list("role", flat=True).first()
    return Role(role) if role else None


def is_at_least(held: Role | None, role: Role) -> bool:
    """Whether whoever holds the first role may do what the second one may."""
    return held is not None and ROLE_RANK[held] >= ROLE_RANK[role]


def has_role(user: User | AnonymousUser, project: Project, role: Role) -> bool:
    """Whether the user may do what this role may."""
    return is_at_least(role_in(user, project), role)


def manages_a_project(user: User | AnonymousUser) -> bool:
    """Whether any project shows the user more than its comparisons."""
    if not user.is_authenticated:
        return False
    return user.is_staff or Membership.objects.filter(user=user, role__in=[Role.REVIEWER, Role.ADMIN]).exists()


def person_required(
    view: Callable[Concatenate[PersonRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """A page for anybody who is signed in; strangers go to the sign-in page."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return to_sign_in(request)
        return view(request, *args, **kwargs)  # type: ignore[arg-type]

    return never_cache(wrapped)


def require_role(
    role: Role,
) -> Callable[
    [Callable[Concatenate[MemberRequest, Project, P], HttpResponseBase]],
    Callable[Concatenate[HttpRequest, str, P], HttpResponseBase],
]:
    """A view of `(request, project, …)` at an address with the project's slug, for members of this role or above.

    Strangers go to the sign-in page; people who are no members learn nothing of the project (404); members of a lower
    role get 403.
    """

    def decorate(
        view: Callable[Concatenate[MemberRequest, Project, P], HttpResponseBase],
    ) -> Callable[Concatenate[HttpRequest, str, P], HttpResponseBase]:
        @functools.wraps(view)
        def wrapped(request: HttpRequest, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return to_sign_in(request)
            project = Project.objects.filter(slug=slug).first()
            held = role_in(request.user, project) if project else None
            if project is None or held is None:
                raise Http404
            if not is_at_least(held, role):
                raise PermissionDenied(
                    _(
                        "This page needs the role of %(needed)s in this project; yours is %(held)s. "
                        "Ask one of its admins."
                    )
                    % {"needed": role.label, "held": held.label}
                )
            request.role = held  # type: ignore[attr-defined]
            try:
                return view(request, project, *args, **kwargs)  # type: ignore[arg-type]
            except FiguresNotReadyError:
                if request.headers.get("HX-Request") == "true":
                    return HttpResponse(status=204)
                answer = render(request, "people/counting.html", {"project": project})
                answer["Refresh"] = "5"
                return answer

        return never_cache(wrapped)

    return decorate


def to_sign_in(request: HttpRequest) -> HttpResponseBase:
    """Where a stranger goes; a page that watches itself is told to load anew, or a corner of it would sign in."""
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    return redirect_to_login(request.get_full_path())
