"""What the site says when its database is away, or a project's protocol cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from annotation.access import has_role
from annotation.models import Project, Role
from annotation.protocol import BrokenProtocolError

logger = logging.getLogger(__name__)


class DatabaseDownMiddleware:
    """Answers 503 with a sentence when Postgres is away, so that a browser keeps its vote and tries again."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, (OperationalError, InterfaceError)):
            return None
        logger.error("database unavailable: %s", exception)
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": "5"})


class BrokenProtocolMiddleware:
    """Answers 409 with the sentence: every page of such a project needs it, and one of them mends it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, BrokenProtocolError):
            return None
        logger.error("%s", exception)
        if request.headers.get("X-Requested-With") == "fetch":
            return HttpResponse(str(exception), status=409, content_type="text/plain; charset=utf-8")
        project = Project.objects.get(slug=exception.slug)
        may_mend = has_role(request.user, project, Role.ADMIN)
        context = {"sentence": str(exception), "project": project, "may_mend": may_mend}
        return render(request, "409.html", context, status=409)
