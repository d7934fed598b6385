"""Who is signed in, as every request asks: two prepared statements in place of three that the ORM composes anew.

Sessions are Django's own, in its table, so that deleting a row signs out.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.sessions.backends import db
from django.utils import timezone

from annotation.models import Annotator
from annotation.services.statements import Columns, Statement, run, split

_SESSION = Statement("SELECT session_data FROM django_session WHERE session_key = %(key)s AND expire_date > %(now)s")


class SessionStore(db.SessionStore):
    def load(self) -> dict[str, Any]:
        rows = run(_SESSION, {"key": self.session_key, "now": timezone.now()})
        if rows:
            return self.decode(rows[0][0])
        self._session_key = None
        return {}


_USER = Columns(User, "u")
_ANNOTATOR = Columns(Annotator, "n")
_ACCOUNT = Statement(f"""
SELECT {_USER.sql}, {_ANNOTATOR.sql} FROM auth_user u LEFT JOIN annotation_annotator n ON n.user_id = u.id
WHERE u.id = %(user)s
""")


class AccountBackend(ModelBackend):
    """Django's accounts, with the annotator that stands for each at hand."""

    def get_user(self, user_id: int) -> User | None:
        rows = run(_ACCOUNT, {"user": user_id})
        if not rows:
            return None
        user, annotator = split(rows[0], _USER, _ANNOTATOR)
        if annotator:
            User.annotator.related.set_cached_value(user, annotator)
        return user if self.user_can_authenticate(user) else None
