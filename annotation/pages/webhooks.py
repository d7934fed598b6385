"""The addresses outside that a project tells what happens, and how they answered."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import MemberRequest, require_role
from annotation.errors import DomainError
from annotation.models import DeliveryStatus, Project, Role, Webhook, WebhookDelivery
from annotation.pages.forms import WebhookForm
from annotation.services import webhooks as services

SHOWN = 50


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def webhook_list(request: MemberRequest, project: Project) -> HttpResponse:
    """`?removed=` offers to bring one back."""
    form, added = WebhookForm(request.POST or None), None
    if request.method == "POST" and form.is_valid():
        try:
            added = services.add_webhook(project, by=request.user, **form.cleaned_data)
        except DomainError as refused:
            form.add_error("url", str(refused).removeprefix("url: "))
        else:
            form = WebhookForm()
    last = WebhookDelivery.objects.filter(webhook=OuterRef("pk")).order_by("-pk")
    rows = _live(project).annotate(
        last_status=Subquery(last.values("status")[:1]), last_at=Subquery(last.values("created_at")[:1])
    )
    removed = request.GET.get("removed", "")
    context: dict[str, Any] = {
        "project": project,
        "form": form,
        "rows": [(row, _badge(row.last_status)) for row in rows.order_by("pk")],
        "added": added,
        # In this one answer and nowhere else, so there is no redirect after the POST.
        "secret": services.signing_secret(added) if added else "",
        "removed": Webhook.objects.filter(
            project=project, removed_at__isnull=False, pk=int(removed) if _is_id(removed) else 0
        ).first(),
    }
    return render(request, "people/webhooks.html", context, status=422 if form.errors else 200)


@require_role(Role.ADMIN)
@require_GET
def webhook(request: MemberRequest, project: Project, webhook_id: int) -> HttpResponse:
    """What was sent there, newest first; `?status=` narrows it down."""
    found = _webhook(project, webhook_id)
    status, before = request.GET.get("status", ""), request.GET.get("before", "")
    deliveries = found.deliveries.order_by("-pk")
    if status in DeliveryStatus.values:
        deliveries = deliveries.filter(status=status)
    if _is_id(before):
        deliveries = deliveries.filter(pk__lt=int(before))
    rows = list(deliveries[: SHOWN + 1])
    context = {
        "project": project,
        "webhook": found,
        "rows": [
            (row, _badge(row.status), json.dumps(row.payload, ensure_ascii=False, indent=2)) for row in rows[:SHOWN]
        ],
        "next": rows[SHOWN - 1].pk if len(rows) > SHOWN else None,
        "is_first": not before,
        "statuses": DeliveryStatus.choices,
        "status": status if status in DeliveryStatus.values else "",
    }
    return render(request, "people/webhook.html", context)


@require_role(Role.ADMIN)
@require_POST
def switch(request: MemberRequest, project: Project, webhook_id: int) -> HttpResponse:
    is_active = request.POST.get("is_active") == "true"
    services.switch_webhook(_webhook(project, webhook_id), is_active=is_active, by=request.user)
    if is_active:
        messages.success(request, _("It is on: it is told of what happens from now on."))
    else:
        messages.success(request, _("It is off: nothing is sent there, and nothing is kept for it."))
    return redirect("project_webhook", project.slug, webhook_id)


@require_role(Role.ADMIN)
@require_POST
def remove(request: MemberRequest, project: Project, webhook_id: int) -> HttpResponse:
    services.remove_webhook(_webhook(project, webhook_id), by=request.user)
    answer = redirect("project_webhooks", project.slug)
    answer["Location"] += f"?removed={webhook_id}"
    return answer


@require_role(Role.ADMIN)
@require_POST
def restore(request: MemberRequest, project: Project, webhook_id: int) -> HttpResponse:
    removed = get_object_or_404(Webhook, pk=webhook_id, project=project)
    services.restore_webhook(removed, by=request.user)
    messages.success(request, _("It is back, with the secret that it had."))
    return redirect("project_webhooks", project.slug)


@require_role(Role.ADMIN)
@require_POST
def resend(request: MemberRequest, project: Project, webhook_id: int, delivery_id: UUID) -> HttpResponse:
    found = get_object_or_404(WebhookDelivery, public_id=delivery_id, webhook=_webhook(project, webhook_id))
    try:
        services.resend_delivery(found, by=request.user)
    except DomainError as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, _("It is sent again within a few seconds. Reload the page to see the answer."))
    return redirect("project_webhook", project.slug, webhook_id)


def _live(project: Project) -> QuerySet[Webhook]:
    return Webhook.objects.filter(project=project, removed_at=None)


def _webhook(project: Project, webhook_id: int) -> Webhook:
    return get_object_or_404(_live(project), pk=webhook_id)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _badge(status: str | None) -> dict[str, Any]:
    """How a delivery's state is shown; nothing where nothing was sent."""
    if not status:
        return {}
    tones = {DeliveryStatus.DELIVERED: "good", DeliveryStatus.GIVEN_UP: "error", DeliveryStatus.WAITING: "warning"}
    kind = DeliveryStatus(status)
    return {"label": kind.label, "tone": tones[kind]}
