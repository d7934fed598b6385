"""A program that calls the HTTP API of one project with a token."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from annotation.models import ApiToken, Membership, Project, Role
from tests.factories import make_user


class Program:
    """Somebody of this role in the project, or the user given; answers are (status, JSON)."""

    def __init__(self, project: Project, role: Role | None = None, *, user: User | None = None) -> None:
        self.project, self.user = project, user or make_user()
        if role:
            Membership.objects.update_or_create(project=project, user=self.user, defaults={"role": role})
        secret = ApiToken.objects.create(self.user, expiry=timedelta(days=1))[1]
        self.http = Client(headers={"Authorization": f"Token {secret}"})

    def get(self, path: str, **query: str | int) -> tuple[int, Any]:
        return self._said(self.http.get(self._address(path), query))

    def post(self, path: str, body: Any = None, **fields: object) -> tuple[int, Any]:
        return self._said(self.http.post(self._address(path), json.dumps(body or fields), "application/json"))

    def patch(self, path: str, **fields: object) -> tuple[int, Any]:
        return self._said(self.http.patch(self._address(path), json.dumps(fields), "application/json"))

    def delete(self, path: str) -> tuple[int, Any]:
        return self._said(self.http.delete(self._address(path)))

    def _address(self, path: str) -> str:
        return path if path.startswith("/") else f"/api/v1/projects/{self.project.slug}/{path}"

    @staticmethod
    def _said(answer: Any) -> tuple[int, Any]:
        return answer.status_code, json.loads(answer.content) if answer.content else None
