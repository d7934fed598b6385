"""Who may see what: a role in a project, or staff, who may do everything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache

from annotation.models import Membership, Project, Role

P = ParamSpec("P")
_RANK = {Role.ANNOTATOR: 1, Role.REVIEWER: 2, Role.ADMIN: 3}


def role_in(user: User | AnonymousUser, project: Project) -> Role | None:
    """The user's role in the project; staff are admins everywhere."""
    if not user.is_authenticated:
        return None
    if user.is_staff:
        return Role.ADMIN
    role = Membership.objects.filter(project=project, user=user).values_list("role", flat=True).first()
    return Role(role) if role else None


def has_role(user: User | AnonymousUser, project: Project, role: Role) -> bool:
    """Whether the user may do what this role may."""
    held = role_in(user, project)
    return held is not None and _RANK[held] >= _RANK[role]


def require_role(
    role: Role,
) -> Callable[
    [Callable[Concatenate[HttpRequest, Project, P], HttpResponseBase]],
    Callable[Concatenate[HttpRequest, str, P], HttpResponseBase],
]:
    """A view of `(request, project, …)` at an address with the project's slug, for members of this role or above.

    Strangers go to the sign-in page; people who are no members learn nothing of the project (404); members of a lower
    role get 403.
    """

    def decorate(
        view: Callable[Concatenate[HttpRequest, Project, P], HttpResponseBase],
    ) -> Callable[Concatenate[HttpRequest, str, P], HttpResponseBase]:
        @functools.wraps(view)
        def wrapped(request: HttpRequest, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            project = Project.objects.filter(slug=slug).first()
            held = role_in(request.user, project) if project else None
            if project is None or held is None:
                raise Http404
            if _RANK[held] < _RANK[role]:
                raise PermissionDenied
            return view(request, project, *args, **kwargs)

        return never_cache(wrapped)

    return decorate
