"""What every endpoint shares: who may, how refusals read, how lists are paged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter
from rest_framework import pagination, serializers, status, views
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import services
from annotation.access import is_at_least, role_in
from annotation.errors import AssignmentNotFoundError, ConflictError, DomainError
from annotation.models import Annotator, Project, Role
from annotation.stored_figures import FiguresNotReadyError
from annotation.upload_files import UploadTooLargeError


class ByIdPagination(pagination.CursorPagination):
    """Keyset pages in order of id, so that page 10,000 costs what page 1 costs. `?page_size=` up to 1000."""

    ordering = "id"
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000


class NewestFirstPagination(ByIdPagination):
    ordering = "-id"


def answer_refusal(error: Exception, context: dict[str, Any]) -> Response | None:
    """What the rules refuse is 422 (409 on a conflict, 404 for what is not there) with its sentence as `detail`."""
    if isinstance(error, DomainError):
        code: int = status.HTTP_422_UNPROCESSABLE_ENTITY
        if isinstance(error, AssignmentNotFoundError):
            code = status.HTTP_404_NOT_FOUND
        elif isinstance(error, UploadTooLargeError):
            code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
        elif isinstance(error, ConflictError):
            code = status.HTTP_409_CONFLICT
        return Response({"detail": str(error)}, status=code)
    if isinstance(error, FiguresNotReadyError):
        return Response(
            {"detail": "A worker counts this for the first time. Ask again in a few seconds."},
            status=status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": "5"},
        )
    return views.exception_handler(error, context)


class RefusalSerializer(serializers.Serializer):
    detail = serializers.CharField(help_text="A sentence that says why, and what to do.")


class ProjectView(views.APIView):
    """An endpoint under one project, for members of `role` or above; to others the project does not exist."""

    role = Role.ANNOTATOR
    query: tuple[OpenApiParameter, ...] = ()
    """What its address may carry behind the “?”; anything else is refused by name."""
    project: Project

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.project = project_for(request, str(kwargs["slug"]), self.role)
        known = [parameter.name for parameter in self.query]
        if getattr(self, "pagination_class", None):
            known += [ByIdPagination.cursor_query_param, str(ByIdPagination.page_size_query_param)]
        if unknown := sorted(set(request.query_params) - set(known)):
            choices = f"known are {', '.join(known)}" if known else "none is known"
            raise DomainError(f"{unknown[0]!r} is no parameter of this address; {choices}.")


def project_for(request: Request, slug: str, role: Role) -> Project:
    """The project, where the caller has at least this role in it."""
    user = person(request)
    project = Project.objects.filter(slug=slug).first()
    held = role_in(user, project) if project else None
    if project is None or held is None:
        raise Http404
    if not is_at_least(held, role):
        raise PermissionDenied(f"This needs the role of {Role(role).label} in {project.slug}.")
    return project


def person(request: Request) -> User:
    assert isinstance(request.user, User)
    return request.user


def annotator(request: Request) -> Annotator:
    return services.annotator_for(person(request))


def refuse_unknown(shape: serializers.Serializer, sent: object) -> None:
    """Raise DomainError that names what was sent and is no field: it would be passed over in silence."""
    given = set(sent) if isinstance(sent, Mapping) else set()
    if unknown := sorted(str(name) for name in given - set(shape.fields)):
        raise DomainError(f"{unknown[0]!r} is not known here; known are {', '.join(shape.fields)}.")
