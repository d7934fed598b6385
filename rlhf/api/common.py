"""What every endpoint of training and evaluation shares: for people who run the site, as the pages are."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from rest_framework import generics, permissions, serializers, status, views
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import ByIdPagination, NewestFirstPagination, RefusalSerializer, refuse_unknown
from annotation.models import ResponseSource
from annotation.services import DomainError
from rlhf.models import Checkpoint, JobStatus
from rlhf.services import resolve_alias

REFUSED = {422: RefusalSerializer}


class StaffView(views.APIView):
    permission_classes = [permissions.IsAdminUser]
    query: tuple[str, ...] = ()
    """What its address may carry behind the “?”; anything else is refused by name."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        known = self.known_parameters()
        if unknown := sorted(set(request.query_params) - set(known)):
            choices = f"known are {', '.join(known)}" if known else "none is known"
            raise DomainError(f"{unknown[0]!r} is no parameter of this address; {choices}.")

    def known_parameters(self) -> list[str]:
        paged = [ByIdPagination.cursor_query_param, str(ByIdPagination.page_size_query_param)]
        return [*self.query, *(paged if getattr(self, "pagination_class", None) else [])]


class StaffList(StaffView, generics.ListAPIView):
    """Rows, newest first, narrowed by the query's parameters, which `filters` checks."""

    pagination_class = NewestFirstPagination
    filters: type[serializers.Serializer]

    def known_parameters(self) -> list[str]:
        return [*self.filters().fields, *super().known_parameters()]

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return self.rows({})
        asked = self.filters(data=self.request.query_params)
        asked.is_valid(raise_exception=True)
        return self.rows(asked.validated_data)

    def rows(self, asked: dict[str, Any]) -> QuerySet[Any]:
        raise NotImplementedError


class StatusField(serializers.ChoiceField):
    """Where a job stands."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[status.value for status in JobStatus], **kwargs)


def given(serializer: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    """The checked body of a request; a key that is not known is refused by name, not ignored."""
    found = serializer(data=request.data)
    found.is_valid(raise_exception=True)
    refuse_unknown(found, request.data)
    return dict(found.validated_data)


def refused(error: Exception, **more: Any) -> Response:
    """422 with the refusal's sentence and what it rests on."""
    return Response({"detail": str(error), **more}, status=status.HTTP_422_UNPROCESSABLE_ENTITY)


def as_refusal(error: ValidationError) -> DomainError:
    """A model's refusal of a field's value as a sentence."""
    name, sentences = next(iter(error.message_dict.items()))
    return DomainError(f"{name}: {sentences[0]}")


def checkpoint_named(name: str, project: Any = None) -> Checkpoint:
    """By name or alias; unlike commands, programs elsewhere bring in no directories of this machine."""
    found = Checkpoint.objects.filter(name=name).first() or resolve_alias(name, project)
    if found is None:
        raise DomainError(f"there is no checkpoint or alias {name!r}; see checkpoints/")
    return found


def source_named(name: str) -> ResponseSource:
    """By name, or by the alias or name of a published checkpoint."""
    found = ResponseSource.objects.filter(name=name).first()
    if found is None:
        checkpoint = Checkpoint.objects.filter(name=name).first() or resolve_alias(name)
        found = checkpoint.source if checkpoint else None
    if found is None:
        raise DomainError(f"there is no response source {name!r}; a checkpoint has to be published first")
    return found
