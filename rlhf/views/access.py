"""Who may see the staff pages, and what every one of them shares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache

from annotation.access import to_sign_in

P = ParamSpec("P")


class StaffRequest(HttpRequest):
    """A request whose user `staff_required` has let in."""

    user: User


def staff_required(
    view: Callable[Concatenate[StaffRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Send strangers to the sign-in page and refuse everybody else who is not staff: these pages name sources."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return to_sign_in(request)
        if not request.user.is_staff:
            raise PermissionDenied(
                gettext("Only people who run this site may open it. Ask one of them if you need to.")
            )
        return view(request, *args, **kwargs)  # type: ignore[arg-type]

    return never_cache(wrapped)


def is_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def as_sentence(error: Exception) -> str:
    """A service's refusal as it stands on a page."""
    text = str(error)
    stop = "." if text[-1:].isascii() else "。"
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!", "。", "？")) else stop)
