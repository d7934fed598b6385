"""Who is signed in, as every request asks: one prepared statement in place of three queries composed anew.

Sessions are Django's own, in its table and read at every request, so that deleting a row signs out at once. What a
process remembers of them saves it decoding the same text again, and asking a second time for whose it is.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user
from django.contrib.auth import middleware as auth_middleware
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends import db
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.functional import SimpleLazyObject

from annotation.models import Annotator
from annotation.services.statements import Columns, Statement, run, split

REMEMBERED_SESSIONS = 10_000

_USER = Columns(User, "u")
_ANNOTATOR = Columns(Annotator, "n")
_SESSION = Statement(f"""
SELECT s.session_data, {_USER.sql}, {_ANNOTATOR.sql}
FROM django_session s
LEFT JOIN auth_user u ON u.id = %(user)s
LEFT JOIN annotation_annotator n ON n.user_id = u.id
WHERE s.session_key = %(key)s AND s.expire_date > %(now)s
""")
_ACCOUNT = Statement(f"""
SELECT {_USER.sql}, {_ANNOTATOR.sql} FROM auth_user u LEFT JOIN annotation_annotator n ON n.user_id = u.id
WHERE u.id = %(user)s
""")


class _Session(NamedTuple):
    text: str
    data: dict[str, Any]

    @property
    def user_id(self) -> int | None:
        return int(self.data[SESSION_KEY]) if SESSION_KEY in self.data else None


_remembered: dict[str, _Session] = {}


class SessionStore(db.SessionStore):
    account: User | None = None
    """The user whose session this is, read with it; not looked at yet."""

    def load(self) -> dict[str, Any]:
        key = self.session_key or ""
        session = _remembered.get(key)
        rows = run(_SESSION, {"key": key, "user": session and session.user_id, "now": timezone.now()})
        if not rows:
            _remembered.pop(key, None)
            self._session_key = None
            return {}
        text, *account = rows[0]
        if session is None or session.text != text:
            session = _Session(text, self.decode(text))
            if len(_remembered) >= REMEMBERED_SESSIONS:
                _remembered.clear()
            _remembered[key] = session
        user = _account(account)
        self.account = user if user and user.pk == session.user_id else None
        return copy.deepcopy(session.data)


def _account(row: list[Any]) -> User | None:
    user, annotator = split(row, _USER, _ANNOTATOR)
    if user and annotator:
        User.annotator.related.set_cached_value(user, annotator)
    return user


class AuthenticationMiddleware(auth_middleware.AuthenticationMiddleware):
    """Django's, but takes the user that came with the session."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        request.user = SimpleLazyObject(lambda: _signed_in(request))  # type: ignore[assignment]


def _signed_in(request: HttpRequest) -> User | AnonymousUser:
    session: Any = request.session
    backend, hashed = session.get(BACKEND_SESSION_KEY), session.get(HASH_SESSION_KEY)
    user = session.account
    if (
        user
        and user.is_active
        and backend in settings.AUTHENTICATION_BACKENDS
        and hashed
        and constant_time_compare(hashed, user.get_session_auth_hash())
    ):
        return user
    # Nobody, a session that is new to this process, or one that is not right: Django knows what to do.
    return get_user(request)


class AccountBackend(ModelBackend):
    """Django's accounts, with the annotator that stands for each at hand."""

    def get_user(self, user_id: int) -> User | None:
        rows = run(_ACCOUNT, {"user": user_id})
        user = _account(list(rows[0])) if rows else None
        return user if user and self.user_can_authenticate(user) else None
