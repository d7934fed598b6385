"""Prompts that read alike, group by group, and keeping one of each."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation import browse
from annotation.access import MemberRequest, require_role
from annotation.models import DataJob, DataJobKind, DataJobStatus, Duplicate, Project, Prompt, Role, Tally
from annotation.pages.prompts.browsing import running_job
from annotation.pages.prompts.editing import finished
from annotation.services import DomainError
from annotation.services import duplicates as service

GROUPS_SHOWN = 20
MEMBERS_SHOWN = 6
TEXT_SHOWN = 600


@require_role(Role.ADMIN)
@require_GET
def duplicates(request: MemberRequest, project: Project) -> HttpResponse:
    cursor = browse.Cursor.of(request.GET)
    found = Duplicate.objects.filter(project=project)
    if cursor.after is not None:
        found = found.filter(like__lt=cursor.after)
    sizes = list(found.values("like").annotate(size=Count("pk")).order_by("-like")[: GROUPS_SHOWN + 1])
    shown = [row["like"] for row in sizes[:GROUPS_SHOWN]]
    members: dict[int, list[Duplicate]] = {like: [] for like in shown}
    place = Window(RowNumber(), partition_by=F("like"), order_by=[F("similarity").desc(), F("prompt")])
    for member in found.filter(like__in=shown).annotate(place=place).filter(place__lte=MEMBERS_SHOWN):
        members[member.like_id].append(member)
    ids = [pk for like in shown for pk in (like, *(row.prompt_id for row in members[like]))]
    prompts = Prompt.objects.in_bulk(ids)
    groups = [
        {
            "like": row["like"],
            "size": row["size"] + 1,
            "more": row["size"] - len(members[row["like"]]),
            "members": [
                (prompts[pk], similarity, prompts[pk].messages[-1]["content"][:TEXT_SHOWN])
                for pk, similarity in [
                    (row["like"], None),
                    *((member.prompt_id, member.similarity) for member in members[row["like"]]),
                ]
            ],
        }
        for row in sizes[:GROUPS_SHOWN]
    ]
    last = (
        DataJob.objects.filter(project=project, kind=DataJobKind.DUPLICATES, status=DataJobStatus.DONE)
        .order_by("-pk")
        .first()
    )
    context = {
        "project": project,
        "groups": groups,
        "older": shown[-1] if len(sizes) > GROUPS_SHOWN else None,
        "is_first_page": cursor.after is None,
        "last": last,
        "running": running_job(project),
        "similar_responses": sum(
            count for _value, count in browse.tallied_values(project, Tally.Scope.COMPARISON)["similar"]
        ),
    }
    return render(request, "prompts/duplicates.html", context)


@require_role(Role.ADMIN)
@require_POST
def search(request: MemberRequest, project: Project) -> HttpResponse:
    try:
        job = service.start_search(project, user=request.user)
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("project_duplicates", slug=project.slug)
    return finished(request, job, reverse("project_duplicates", args=[project.slug]))


@require_role(Role.ADMIN)
@require_POST
def keep(request: MemberRequest, project: Project) -> HttpResponse:
    """Keep one prompt of a group, and archive the others."""
    values = [request.POST.get(name, "") for name in ("like", "keep")]
    if not all(value.isdecimal() and len(value) < 19 for value in values):
        messages.warning(request, _("Choose which prompt of the group to keep. Nothing was archived."))
        return redirect("project_duplicates", slug=project.slug)
    return _archive(request, project, lambda: service.keep_one(project, *map(int, values), user=request.user))


@require_role(Role.ADMIN)
@require_POST
def keep_oldest(request: MemberRequest, project: Project) -> HttpResponse:
    at_least = 100 if request.POST.get("at_least") == "100" else 0
    return _archive(request, project, lambda: service.keep_oldest(project, at_least=at_least, user=request.user))


def _archive(request: MemberRequest, project: Project, start: Callable[[], DataJob]) -> HttpResponse:
    try:
        job = start()
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("project_duplicates", slug=project.slug)
    return finished(request, job, reverse("project_duplicates", args=[project.slug]))
