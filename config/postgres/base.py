"""The engine that settings.DATABASES names."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def init_connection_state(self) -> None:
        """Plans of prepared statements are made once, for whatever values come.

        All of these statements find rows by key or by the order of an index. Left to itself Postgres plans each five
        times for its first values, which takes longer than fifty runs.
        """
        with self.connection.cursor() as cursor:
            cursor.execute("SET plan_cache_mode = force_generic_plan")
        super().init_connection_state()

    def is_usable(self) -> bool:
        """Whether a kept connection still stands, as every request asks first.

        A server that went away has closed it, and a closed connection is readable. Only one with something to read is
        asked, by Django's own query.
        """
        if self.connection is None or self.connection.closed:
            return False
        waiting = select.poll()
        waiting.register(self.connection.fileno(), select.POLLIN)
        return not waiting.poll(0) or super().is_usable()
