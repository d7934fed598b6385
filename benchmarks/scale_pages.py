"""Every page of a large project: which of them takes long, and how many queries it makes."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measure import median
from benchmarks.people import PROJECT

PATIENCE_SECONDS = 60  # of one query
ROUNDS = 4
# Not pages to look at, or not about the project.
PASSED_OVER = re.compile(r"^(django-admin|logout|healthz|language|api/schema)|export|\.(csv|jsonl|json|parquet)|<")


def addresses() -> list[str]:
    """Every address that takes nothing but a project's slug."""
    from django.urls import get_resolver

    filled = (re.sub(r"<slug:(slug|project|project_slug)>", PROJECT, route) for route in _routes(get_resolver()))
    return sorted({f"/{address}" for address in filled if not PASSED_OVER.search(address)})


def _routes(resolver: Any, prefix: str = "") -> Iterator[str]:
    for entry in resolver.url_patterns:
        route = prefix + str(getattr(entry.pattern, "_route", "<regular expression>"))
        if hasattr(entry, "url_patterns"):
            yield from _routes(entry, route)
        else:
            yield route


def measure_pages(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """GET of each as an administrator, the slowest first; a query that takes too long ends the page (500, 503)."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    logging.getLogger("django.request").setLevel(logging.ERROR)  # of the addresses that are only posted to
    client = Client(raise_request_exception=False, SERVER_NAME="localhost")
    client.force_login(User.objects.get(username="admin"))
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{PATIENCE_SECONDS}s'")
    rows: list[dict[str, Any]] = []
    for address in addresses:
        times: list[float] = []
        while len(times) < 2 or (len(times) < ROUNDS and sum(times) < 2000):
            began = time.perf_counter()
            with CaptureQueriesContext(connection) as queries:
                response = client.get(address)
            times.append((time.perf_counter() - began) * 1000)
        if response.status_code in (302, 405):  # not a page
            continue
        slowest = max(queries.captured_queries, key=lambda query: float(query["time"]), default=None)
        rows.append(
            {
                "page": address,
                "status": response.status_code,
                "first ms": times[0],
                "then ms": median(times[1:]),
                "queries": len(queries),
                "slowest query ms": float(slowest["time"]) * 1000 if slowest else 0.0,
                "slowest query": str(slowest["sql"])[:2000] if slowest else "",
            }
        )
    with connection.cursor() as cursor:
        cursor.execute("RESET statement_timeout")
    return sorted(rows, key=lambda row: -row["then ms"])
