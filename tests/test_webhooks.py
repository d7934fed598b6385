"""Webhooks: signed, retried, never lost, never sent for what was rolled back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from annotation.errors import DomainError
from annotation.models import DeliveryStatus, Event, EventKind, Project, Webhook, WebhookDelivery
from annotation.services import record_event, webhooks
from tests.factories import make_project, make_user
from tests.test_api import token_for


class Receiver(HTTPServer):
    """Answers with `status` and keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    settings.WEBHOOKS_TO_PRIVATE_ADDRESSES = True
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def hook(url: str, *events: str) -> tuple[Project, Webhook]:
    project = make_project()
    return project, webhooks.add_webhook(project, url, events, by=make_user(is_staff=True))


@pytest.mark.django_db
def test_an_event_arrives_signed_and_once(receiver: Receiver) -> None:
    project, webhook = hook(receiver.url, EventKind.EXPORT)
    record_event(EventKind.EXPORT, project=project, rows=3)
    record_event(EventKind.VOTE, project=project)  # not asked for
    record_event(EventKind.EXPORT, project=make_project())  # another project's
    assert webhooks.deliver_webhooks() == 1
    assert webhooks.deliver_webhooks() == 0
    [(headers, body)] = receiver.got
    message = json.loads(body)
    assert (message["kind"], message["project"], message["data"]) == ("export", project.slug, {"rows": 3})
    secret = base64.b64decode(webhooks.signing_secret(webhook).removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert WebhookDelivery.objects.get().status == DeliveryStatus.DELIVERED


@pytest.mark.django_db
def test_what_was_rolled_back_is_told_to_nobody(receiver: Receiver) -> None:
    project, _ = hook(receiver.url)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record_event(EventKind.VOTE, project=project)
        raise ZeroDivisionError
    assert webhooks.deliver_webhooks() == 0
    assert not receiver.got


@pytest.mark.django_db
@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_refused_message_is_tried_again_later_and_then_given_up(receiver: Receiver, status: int) -> None:
    project, _ = hook(receiver.url)
    record_event(EventKind.VOTE, project=project)
    receiver.status = status
    for pause in webhooks.RETRY_SECONDS:
        before = timezone.now()
        assert webhooks.deliver_webhooks() == 0
        delivery = WebhookDelivery.objects.get()
        assert (delivery.status, delivery.last_status_code) == (DeliveryStatus.WAITING, status)
        assert delivery.next_attempt_at >= before + timedelta(seconds=pause)
        assert webhooks.deliver_webhooks() == 0  # not due yet
        WebhookDelivery.objects.update(next_attempt_at=timezone.now())
    webhooks.deliver_webhooks()
    assert WebhookDelivery.objects.get().status == DeliveryStatus.GIVEN_UP
    ids = {headers["webhook-id"] for headers, _ in receiver.got}
    assert (len(receiver.got), len(ids)) == (len(webhooks.RETRY_SECONDS) + 1, 1)


@pytest.mark.django_db
def test_a_dead_address_is_noted_and_a_late_success_counts(receiver: Receiver) -> None:
    project, webhook = hook(receiver.url)
    Webhook.objects.filter(pk=webhook.pk).update(url="http://127.0.0.1:1/")
    record_event(EventKind.VOTE, project=project)
    webhooks.deliver_webhooks()
    assert "refused" in WebhookDelivery.objects.get().last_error.lower()
    Webhook.objects.filter(pk=webhook.pk).update(url=receiver.url)
    WebhookDelivery.objects.update(next_attempt_at=timezone.now())
    assert webhooks.deliver_webhooks() == 1


@pytest.mark.django_db
def test_a_removed_webhook_hears_nothing_more(receiver: Receiver) -> None:
    project, webhook = hook(receiver.url)
    record_event(EventKind.VOTE, project=project)
    webhooks.remove_webhook(webhook, by=webhook.created_by)
    record_event(EventKind.VOTE, project=project)
    assert webhooks.deliver_webhooks() == 0
    assert not receiver.got


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "http://", "http://127.0.0.1/", "http://[::1]:80/x", "http://10.0.0.3/"]
)
def test_an_address_that_must_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(DomainError, match="url"):
        hook(url)


@pytest.mark.django_db
def test_an_unknown_event_is_refused_by_name() -> None:
    with pytest.raises(DomainError, match="“views” is unknown"):
        hook("https://example.org/", "views")


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(make_user("ada", is_staff=True))
    return client


@pytest.mark.django_db
def test_an_admin_adds_one_on_the_page_and_sees_its_secret_once(receiver: Receiver, admin: Client) -> None:
    project = make_project("told")
    page = "/projects/told/webhooks/"
    for url, sentence in [("example", "valid URL"), ("ftp://example.org/", "valid URL")]:
        refused = admin.post(page, {"url": url, "events": ["flag"]})
        assert refused.status_code == 422 or sentence in refused.content.decode(), url
    assert admin.post(page, {"url": receiver.url, "events": ["lease"]}).status_code == 422
    assert not Webhook.objects.exists()
    answer = admin.post(page, {"url": receiver.url, "events": ["flag", "vote"]})
    webhook = Webhook.objects.get()
    secret = webhooks.signing_secret(webhook)
    assert (webhook.url, webhook.events) == (receiver.url, ["flag", "vote"])
    assert secret in answer.content.decode()
    shown = [admin.get(page).content.decode(), admin.get(f"{page}{webhook.pk}/").content.decode()]
    assert all(receiver.url in text and secret not in text for text in shown)

    record_event(EventKind.FLAG, project=project)
    record_event(EventKind.EDIT, project=project)  # it is not told of this
    receiver.status = 503
    webhooks.deliver_webhooks()
    (row, badge, payload) = admin.get(f"{page}{webhook.pk}/?status=waiting").context["rows"][0]
    assert (row.last_status_code, str(badge["label"])) == (503, "waiting") and '"kind": "flag"' in payload
    assert not admin.get(f"{page}{webhook.pk}/?status=delivered").context["rows"]
    receiver.status = 200
    resend = f"{page}{webhook.pk}/{row.public_id}/resend/"
    assert "again within" in admin.post(resend, follow=True).content.decode()
    assert webhooks.deliver_webhooks() == 1
    assert {headers["webhook-id"] for headers, _body in receiver.got} == {str(row.public_id)}
    admin.post(resend)  # also what had arrived
    assert webhooks.deliver_webhooks() == 1
    assert WebhookDelivery.objects.get().status == DeliveryStatus.DELIVERED


@pytest.mark.django_db
def test_the_page_refuses_an_address_inside_this_network_in_the_persons_language(admin: Client) -> None:
    make_project("told")
    answer = admin.post("/projects/told/webhooks/", {"url": "http://127.0.0.1:1/hook"})
    assert answer.status_code == 422 and "127.0.0.1 is inside this network" in answer.content.decode()
    assert "url:" not in answer.content.decode()
    assert not Webhook.objects.exists()


@pytest.mark.django_db
def test_one_that_is_off_hears_nothing_and_a_removal_is_undone(receiver: Receiver, admin: Client) -> None:
    project, webhook = hook(receiver.url, "vote")
    page = f"/projects/{project.slug}/webhooks/"
    record_event(EventKind.VOTE, project=project)
    admin.post(f"{page}{webhook.pk}/switch/", {"is_active": "false"})
    record_event(EventKind.VOTE, project=project)
    assert webhooks.deliver_webhooks() == 0
    (waited,) = WebhookDelivery.objects.all()  # of what happened since nothing was kept
    assert waited.status == DeliveryStatus.GIVEN_UP and "switched off" in waited.last_error
    resend = f"{page}{webhook.pk}/{waited.public_id}/resend/"
    assert "Switch it on" in admin.post(resend, follow=True).content.decode()
    admin.post(f"{page}{webhook.pk}/switch/", {"is_active": "true"})
    admin.post(resend)
    record_event(EventKind.VOTE, project=project)
    assert webhooks.deliver_webhooks() == 2

    gone = admin.post(f"{page}{webhook.pk}/remove/", follow=True)
    assert not gone.context["rows"] and gone.context["removed"] == webhook
    assert admin.get(f"{page}{webhook.pk}/").status_code == 404
    record_event(EventKind.VOTE, project=project)
    assert webhooks.deliver_webhooks() == 0
    admin.post(f"{page}{webhook.pk}/restore/")
    record_event(EventKind.VOTE, project=project)
    assert webhooks.deliver_webhooks() == 1
    done = Event.objects.filter(kind=EventKind.TOKEN, project=project).order_by("pk")
    actions = [event.data["action"] for event in done]
    assert actions == ["added", "switched off", "switched on", "resent", "removed", "restored"]


@pytest.mark.django_db
def test_a_program_switches_and_resends(receiver: Receiver) -> None:
    project, webhook = hook(receiver.url, "vote")
    client = Client(headers={"Authorization": f"Token {token_for(webhook.created_by)}"})
    record_event(EventKind.VOTE, project=project)
    path = f"/api/v1/projects/{project.slug}/webhooks/{webhook.pk}/"
    delivery = WebhookDelivery.objects.get()
    off = client.patch(path, {"is_active": False}, "application/json")
    assert off.json()["is_active"] is False
    assert client.post(f"{path}deliveries/{delivery.public_id}/resend/").status_code == 422
    client.patch(path, {"is_active": True}, "application/json")
    assert client.post(f"{path}deliveries/{delivery.public_id}/resend/").status_code == 202
    assert webhooks.deliver_webhooks() == 1
    assert client.delete(path).status_code == 204 and client.delete(path).status_code == 404
    assert client.get(f"/api/v1/projects/{project.slug}/webhooks/").json() == []
