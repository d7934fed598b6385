"""The health check of kept connections."""

from __future__ import annotations

import pytest
from django.db import connection, connections


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_has_ended_is_seen_without_a_query() -> None:
    connection.ensure_connection()
    assert connection.is_usable()
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            # Waits until the backend is gone, a second at most.
            cursor.execute("SELECT pg_terminate_backend(%s, 1000)", [connection.connection.info.backend_pid])
        assert not connection.is_usable()
        connection.close()
        assert not connection.is_usable()
        connection.ensure_connection()
        assert connection.is_usable()
    finally:
        other.close()
