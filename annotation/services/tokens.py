"""API tokens and the lock on sign-in: what a person's account is opened with."""

from __future__ import annotations

from datetime import timedelta

from axes.utils import reset
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import ApiToken, EventKind, Project
from annotation.services.journal import record_event

MAX_TOKEN_DAYS = 365


def make_token(user: User, *, name: str, days: int) -> tuple[ApiToken, str]:
    """A token that does what its owner may do until it expires, and its secret, which cannot be had again."""
    if not 1 <= days <= MAX_TOKEN_DAYS:
        raise DomainError(_("A token lasts between 1 and %(most)s days.") % {"most": MAX_TOKEN_DAYS})
    with transaction.atomic():
        token, secret = ApiToken.objects.create(user, expiry=timedelta(days=days), name=name)
        record_event(EventKind.TOKEN, user=user, action="made", token=token.token_key, days=days)
    return token, secret


def withdraw_token(token: ApiToken, *, by: User) -> None:
    """End a token at once."""
    with transaction.atomic():
        token.delete()
        record_event(EventKind.TOKEN, user=by, action="withdrawn", token=token.token_key)


def unlock_sign_in(user: User, *, by: User, project: Project | None = None) -> int:
    """Forget the wrong passwords of an account, from wherever they came; gives how many addresses were locked."""
    with transaction.atomic():
        count = reset(username=user.get_username())
        record_event(EventKind.SIGN_IN, user=by, project=project, action="unlocked", member=user.get_username())
    return count
