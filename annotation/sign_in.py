"""The door: who signs in and out, and the lock after too many wrong passwords (django-axes counts them)."""

from __future__ import annotations

import contextlib
import ipaddress
import math
from datetime import datetime, timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import ngettext

from annotation.models import EventKind
from annotation.services.journal import record_event


def client_address(request: HttpRequest) -> str | None:
    """The browser's address: behind a proxy the last one that the proxy saw, which nobody else can write."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "") if settings.HTTPS else ""
    for given in (forwarded.rpartition(",")[2].strip(), request.META.get("REMOTE_ADDR", "")):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(given))
    return None


class SignIn(LoginView):
    template_name = "login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        record_event(EventKind.SIGN_IN, user=form.get_user(), action="signed_in", address=client_address(self.request))
        return answer


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """Django's admin has a door of its own; this one leads to ours, which counts, locks and keeps the journal."""
    if request.user.is_authenticated:  # somebody who is no staff: signing in again would not help
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"))


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """The sign-in page with the minutes to wait, in place of what the page would have said; axes calls this."""
    username = (credentials or {}).get("username") or ""
    address = client_address(request)
    # axes sets the count on the request that filled it up, and not while the lock holds.
    if getattr(request, "axes_failures_since_start", None) is not None:
        user = User.objects.filter(username=username).first()
        record_event(EventKind.SIGN_IN, user=user, action="locked_out", address=address)
    lock = Lock.of(username, address)
    minutes = lock.minutes_left if lock else math.ceil(settings.AXES_COOLOFF_TIME.total_seconds() / 60)
    sentence = ngettext(
        "Too many wrong passwords. This account is locked from here for %(minutes)s more minute. "
        "Nothing is lost; an admin of your project can unlock it sooner.",
        "Too many wrong passwords. This account is locked from here for %(minutes)s more minutes. "
        "Nothing is lost; an admin of your project can unlock it sooner.",
        minutes,
    ) % {"minutes": minutes}
    answer = render(request, "login.html", {"locked": sentence, "next": request.POST.get("next", "")}, status=429)
    answer["Retry-After"] = str(60 * minutes)
    return answer


class Lock:
    """An account that cannot be signed in to from one address."""

    def __init__(self, username: str, address: str | None, last_try: datetime) -> None:
        self.username = username
        self.address = address
        self.until = last_try + settings.AXES_COOLOFF_TIME

    @property
    def minutes_left(self) -> int:
        return max(1, math.ceil((self.until - timezone.now()) / timedelta(minutes=1)))

    @classmethod
    def of(cls, username: str, address: str | None) -> Lock | None:
        return next((lock for lock in locks([username]) if lock.address == address), None)


def locks(usernames: list[str]) -> list[Lock]:
    """What is locked at this moment."""
    attempts = (
        AccessAttempt.objects.filter(
            username__in=usernames, attempt_time__gte=timezone.now() - settings.AXES_COOLOFF_TIME
        )
        .order_by()
        .values("username", "ip_address")
        .annotate(failures=Sum("failures_since_start"), last_try=Max("attempt_time"))
        .filter(failures__gte=settings.AXES_FAILURE_LIMIT)
    )
    return [Lock(row["username"], row["ip_address"], row["last_try"]) for row in attempts]
