"""Webhooks: telling other sites what happened, signed, again and again until they listen.

The database makes a WebhookDelivery for every journal event that a webhook asks for, in the transaction that appends
the event (migration 0003), so that none is lost and none tells of what was rolled back. Messages follow the Standard
Webhooks specification 1.0 (https://www.standardwebhooks.com): headers webhook-id, webhook-timestamp and
webhook-signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import DeliveryStatus, EventKind, Project, Webhook, WebhookDelivery
from annotation.services.journal import record_event

EVENT_KINDS = tuple(
    kind
    for kind in EventKind
    if kind not in (EventKind.VIEW, EventKind.LEASE, EventKind.EXPIRE, EventKind.SIGN_IN, EventKind.TOKEN)
)
"""What a webhook can ask for."""

RETRY_SECONDS = (10, 60, 300, 1800, 7200, 21_600, 86_400)
"""Pauses after the first, second, … failed attempt; after the last attempt a delivery is given up."""

_TIMEOUT_SECONDS = 10
_BATCH = 50
_HELD_SECONDS = 120  # how long a sender keeps what it took; longer than a whole batch of time-outs is not needed


def add_webhook(project: Project, url: str, events: Iterable[str], *, by: User) -> Webhook:
    """Register an address. Raises DomainError where it is not one that may be called."""
    chosen = sorted(set(events))
    if unknown := set(chosen) - set(EVENT_KINDS):
        raise DomainError(
            "events: "
            + _("“%(event)s” is unknown; choose among %(known)s.")
            % {"event": sorted(unknown)[0], "known": ", ".join(EVENT_KINDS)}
        )
    _check_address(url)
    with transaction.atomic():
        webhook = Webhook.objects.create(project=project, url=url, events=chosen, created_by=by)
        record_event(EventKind.TOKEN, project=project, user=by, webhook=webhook.pk, action="added")
    return webhook


def switch_webhook(webhook: Webhook, *, is_active: bool, by: User) -> None:
    """Stop telling an address, or begin again. While it is off nothing is kept for it; what waits is given up."""
    with transaction.atomic():
        live = Webhook.objects.filter(pk=webhook.pk, removed_at=None)
        if live.exclude(is_active=is_active).update(is_active=is_active):
            if not is_active:
                _give_up(webhook, _("the webhook was switched off"))
            action = "switched on" if is_active else "switched off"
            record_event(EventKind.TOKEN, project=webhook.project, user=by, webhook=webhook.pk, action=action)


def remove_webhook(webhook: Webhook, *, by: User) -> None:
    """Stop telling an address and show it no more; what still waits is given up, what was sent stays on record."""
    with transaction.atomic():
        live = Webhook.objects.filter(pk=webhook.pk, removed_at=None)
        if live.update(is_active=False, removed_at=timezone.now()):
            _give_up(webhook, _("the webhook was removed"))
            record_event(EventKind.TOKEN, project=webhook.project, user=by, webhook=webhook.pk, action="removed")


def restore_webhook(webhook: Webhook, *, by: User) -> None:
    """Undo the removal: it is told of what happens from now on, with the secret that it had."""
    with transaction.atomic():
        removed = Webhook.objects.filter(pk=webhook.pk, removed_at__isnull=False)
        if removed.update(is_active=True, removed_at=None):
            record_event(EventKind.TOKEN, project=webhook.project, user=by, webhook=webhook.pk, action="restored")


def _give_up(webhook: Webhook, reason: str) -> None:
    webhook.deliveries.filter(status=DeliveryStatus.WAITING).update(
        status=DeliveryStatus.GIVEN_UP, last_error=reason[:300]
    )


def resend_delivery(delivery: WebhookDelivery, *, by: User) -> None:
    """Have one sent again by the next sender, with all its attempts before it and the same webhook-id.

    Raises DomainError where its webhook is off.
    """
    with transaction.atomic():
        webhook = Webhook.objects.select_for_update().get(pk=delivery.webhook_id)
        if not webhook.is_active:
            raise DomainError(_("This webhook is switched off. Switch it on, and send again."))
        WebhookDelivery.objects.filter(pk=delivery.pk).update(
            status=DeliveryStatus.WAITING, attempt_count=0, next_attempt_at=timezone.now(), delivered_at=None
        )
        record_event(
            EventKind.TOKEN,
            project=webhook.project_id,
            user=by,
            webhook=webhook.pk,
            action="resent",
            delivery=str(delivery.public_id),
        )


def signing_secret(webhook: Webhook) -> str:
    """What the receiver checks signatures with, in the form of the specification. Derived from the site's key."""
    key = hmac.digest(settings.SECRET_KEY.encode(), f"webhook {webhook.pk}".encode(), "sha256")
    return "whsec_" + base64.b64encode(key).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def deliver_webhooks() -> int:
    """Send what is due; gives how many arrived. Several senders at once never send the same attempt twice."""
    arrived = 0
    with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
        while due := _take_due():
            arrived += sum(_deliver(client, delivery) for delivery in due)
    return arrived


def _take_due() -> list[WebhookDelivery]:
    now = timezone.now()
    with transaction.atomic():
        due = list(
            WebhookDelivery.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(status=DeliveryStatus.WAITING, next_attempt_at__lte=now)
            .select_related("webhook")
            .order_by("next_attempt_at", "id")[:_BATCH]
        )
        held_until = now + timedelta(seconds=_HELD_SECONDS + _TIMEOUT_SECONDS * len(due))
        WebhookDelivery.objects.filter(pk__in=[delivery.pk for delivery in due]).update(next_attempt_at=held_until)
    return due


def _deliver(client: httpx.Client, delivery: WebhookDelivery) -> bool:
    now = timezone.now()
    body = json.dumps(delivery.payload, ensure_ascii=False).encode()
    message_id, timestamp = str(delivery.public_id), int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "Touchstone",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(signing_secret(delivery.webhook), message_id, timestamp, body),
    }
    code, error = None, ""
    try:
        _check_address(delivery.webhook.url)
        code = client.post(delivery.webhook.url, content=body, headers=headers).status_code
    except (httpx.HTTPError, httpx.InvalidURL, DomainError) as failure:
        error = str(failure) or type(failure).__name__
    attempt = delivery.attempt_count + 1
    changes: dict[str, object] = {"attempt_count": attempt, "last_status_code": code, "last_error": error[:300]}
    arrived = code is not None and 200 <= code < 300
    if arrived:
        changes |= {"status": DeliveryStatus.DELIVERED, "delivered_at": timezone.now()}
    elif attempt > len(RETRY_SECONDS):
        changes |= {"status": DeliveryStatus.GIVEN_UP}
    else:
        changes |= {"next_attempt_at": now + timedelta(seconds=RETRY_SECONDS[attempt - 1])}
    WebhookDelivery.objects.filter(pk=delivery.pk, status=DeliveryStatus.WAITING).update(**changes)
    return arrived


def _check_address(url: str) -> None:
    """Refuse what is no web address, and addresses inside this network unless the site allows them.

    Asked again before each attempt, because a name can point elsewhere later. A name that changes between this look
    and the connection is not caught; a firewall is.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DomainError("url: " + _("“%(url)s” is not an http or https address.") % {"url": url[:200]})
    if settings.WEBHOOKS_TO_PRIVATE_ADDRESSES:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DomainError("url: " + _("the name %(name)s cannot be found.") % {"name": parts.hostname}) from error
    for *_family, address in found:
        if not ipaddress.ip_address(str(address[0]).split("%")[0]).is_global:
            raise DomainError(
                "url: "
                + _(
                    "%(name)s is inside this network. Whoever runs the site can allow such addresses with "
                    "TOUCHSTONE_WEBHOOKS_TO_PRIVATE_ADDRESSES."
                )
                % {"name": parts.hostname}
            )
