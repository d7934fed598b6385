"""What a load balancer or a compose health check asks."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from rlhf.services import broker_is_up


def healthz(request: HttpRequest) -> JsonResponse:
    """200 while votes can be taken. Without the broker they can: jobs wait in the database until it is back."""
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        database = "ok"
    except DatabaseError:
        database = "unreachable"
    broker = "ok" if broker_is_up() else "unreachable"
    return JsonResponse({"database": database, "broker": broker}, status=200 if database == "ok" else 503)
