"""The journal of a project, and of the site where no project is concerned."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation import services
from annotation.access import MemberRequest, PersonRequest, person_required, require_role
from annotation.journal import PAGE, copy_events, events_of
from annotation.models import EventKind, Project, Role

CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


@require_role(Role.ADMIN)
@require_GET
def journal(request: MemberRequest, project: Project) -> HttpResponse:
    return _page(request, project)


@require_role(Role.ADMIN)
@require_GET
def journal_file(request: MemberRequest, project: Project, suffix: str) -> HttpResponseBase:
    return _file(request, project, suffix)


@require_GET
@person_required
def site_journal(request: PersonRequest) -> HttpResponse:
    """What concerns no single project: sign-ins, tokens, accounts. For staff."""
    _staff_only(request)
    return _page(request, None)


@require_GET
@person_required
def site_journal_file(request: PersonRequest, suffix: str) -> HttpResponseBase:
    _staff_only(request)
    return _file(request, None, suffix)


def _staff_only(request: PersonRequest) -> None:
    if not request.user.is_staff:
        raise PermissionDenied


def _filters(request: MemberRequest | PersonRequest) -> dict[str, Any]:
    """The kind and the person that are asked for. A name that nobody has finds nothing."""
    kind, person = request.GET.get("kind", ""), request.GET.get("person", "").strip()
    user_id = None
    if person:
        user_id = User.objects.filter(username=person).values_list("pk", flat=True).first() or 0
    return {"kind": kind if kind in EventKind.values else "", "user_id": user_id}


def _page(request: MemberRequest | PersonRequest, project: Project | None) -> HttpResponse:
    events = events_of(project, **_filters(request))
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        events = events.filter(pk__lt=int(before))
    rows = list(events[: PAGE + 1])
    query = request.GET.copy()
    query.pop("before", None)
    context = {
        "project": project,
        "rows": [(event, _words(event.data)) for event in rows[:PAGE]],
        "next": rows[PAGE - 1].pk if len(rows) > PAGE else None,
        "query": query.urlencode(),
        "kinds": EventKind.choices,
        "kind": request.GET.get("kind", ""),
        "person": request.GET.get("person", ""),
        "is_first": not before,
    }
    return render(request, "people/journal.html", context)


def _words(data: dict[str, Any]) -> list[tuple[str, str]]:
    """What an event carries, as pairs of short texts, what was done first."""
    data = {name: data[name] for name in sorted(data, key=lambda name: name != "action")}
    return [
        (name.replace("_", " "), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in data.items()
    ]


def _file(request: MemberRequest | PersonRequest, project: Project | None, suffix: str) -> HttpResponseBase:
    if suffix not in CONTENT_TYPES:
        raise Http404
    filters = _filters(request)
    services.record_event(EventKind.EXPORT, project=project, user=request.user, what="journal", format=suffix)
    name = f"{project.slug if project else 'site'}-journal.{suffix}"
    return StreamingHttpResponse(
        copy_events(project, suffix, **filters),
        content_type=CONTENT_TYPES[suffix],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
