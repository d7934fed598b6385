"""What people wait for as a project grows: claims, votes, lists, search and counts at 10,000 to 1,000,000 comparisons.

    python -m benchmarks.scale [--sizes 10000 100000 1000000] [--repeats 60] [--explain FILE] [--plot FILE.svg]
                               [--pages]

The rows are made inside Postgres (benchmarks/scale_rows.py), the project grows from size to size, and everything runs
over the embedded Postgres with its own settings, in a temporary folder. A time is that of the function behind the page
or the vote, all its queries included; p50 and p95 are taken over --repeats calls with drawn arguments after a warm-up,
and so is the median of the CPU that Python and Postgres took, which other work on the machine hardly changes.
Queries are counted in every call; their number must be the same at every size, else the command fails. --explain
writes EXPLAIN (ANALYZE, BUFFERS) of each query at the largest size, --plot the growth of every p95, --pages asks for
every page of the project at the largest size.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.measure import add_json_option, machine, median, p95, print_table, write_json
from benchmarks.people import PROJECT
from benchmarks.servers import prepared_django

WARM_UP = 3
TARGET_MS = 50.0


@dataclass(frozen=True)
class Operation:
    """`prepare` runs before each call, untimed, and gives what the call takes."""

    name: str
    call: Callable[[Any], object]
    prepare: Callable[[random.Random], Any] = lambda rng: None


def operations() -> list[Operation]:
    """All that is measured."""
    from django.contrib.auth.models import User
    from django.test import Client

    from annotation import browse, services
    from annotation.answer import Answer
    from annotation.models import Annotator, Assignment, Project, Tally
    from annotation.search_terms import compile_search
    from benchmarks.scale_rows import COMMON_WORD, RARE_WORD

    project = Project.objects.get(slug=PROJECT)
    everybody = list(Annotator.objects.filter(user__isnull=False).order_by("id"))
    of_rare_language = everybody[1]
    newcomers = itertools.cycle(everybody[2:])
    newest_prompt = project.prompts.latest("id").pk
    newest_comparison = project.comparisons.latest("id").pk

    def settle(annotator: Annotator) -> Annotator:
        """Whatever they hold counts as judged, so that the next claim looks for new places."""
        held = Assignment.objects.filter(annotator=annotator, status="leased")
        for assignment in held:
            submit(annotator, assignment)
        return annotator

    def submit(annotator: Annotator, assignment: Assignment) -> None:
        services.submit_judgment(
            assignment_id=assignment.public_id,
            annotator=annotator,
            judgment_id=uuid4(),
            answer=Answer(choice="-2", decided_in_ms=4000),
        )

    def claim(annotator: Annotator) -> None:
        assert len(services.claim_assignments(annotator=annotator, project=project)) == 2

    def at_work(rng: random.Random) -> tuple[Annotator, list[Assignment]]:
        annotator = settle(next(newcomers))
        return annotator, services.claim_assignments(annotator=annotator, project=project)

    def vote(desk: tuple[Annotator, list[Assignment]]) -> None:
        annotator, held = desk
        _, shown = services.judge_and_claim(
            assignment_id=held[0].public_id,
            annotator=annotator,
            judgment_id=uuid4(),
            answer=Answer(choice="-2", decided_in_ms=4000),
            known={held[1].public_id},
        )
        assert len(shown) == 1

    def with_language(rng: random.Random) -> Annotator:
        assert of_rare_language.user is not None
        of_rare_language.user.memberships.update(languages=["fi"])
        return settle(of_rare_language)

    def without_language(annotator: Annotator) -> None:
        claim(annotator)

    def anywhere(newest: int) -> Callable[[random.Random], browse.Cursor]:
        return lambda rng: browse.Cursor(after=rng.randrange(newest // 2, newest))

    def prompts(**given: Any) -> Callable[[Any], object]:
        def page(cursor: Any) -> None:
            search = compile_search(given["query"]) if "query" in given else None
            listed = browse.prompt_page(
                project, browse.PromptFilter(**given), cursor or browse.Cursor(), search=search
            )
            assert listed.rows

        return page

    def comparisons(**given: Any) -> Callable[[Any], object]:
        def page(cursor: Any) -> None:
            listed = browse.comparison_page(project, browse.ComparisonFilter(**given), cursor or browse.Cursor())
            assert listed.rows

        return page

    def count_prompts(**given: Any) -> Callable[[Any], object]:
        def count(_: Any) -> None:
            search = compile_search(given["query"]) if "query" in given else None
            assert browse.prompt_count(project, browse.PromptFilter(**given), search=search).value

        return count

    def count_comparisons(**given: Any) -> Callable[[Any], object]:
        def count(_: Any) -> None:
            assert browse.comparison_count(project, browse.ComparisonFilter(**given)).value

        return count

    def answer(address: str) -> Callable[[Any], object]:
        def get(_: Any) -> None:
            assert client.get(address).status_code == 200

        return get

    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.get(username="admin"))
    batch = project.batches.order_by("id").values_list("id", flat=True)[3]
    return [
        Operation("claim: two places", claim, lambda rng: settle(next(newcomers))),
        Operation("claim: has had all that is partly judged", claim, lambda rng: settle(everybody[0])),
        Operation("vote and claim", vote, at_work),
        Operation("comparisons: newest", comparisons()),
        Operation("comparisons: anywhere", comparisons(), anywhere(newest_comparison)),
        Operation("comparisons: not judged", comparisons(state=1)),
        Operation("comparisons: language, batch and state", comparisons(lang="fi", batch=batch, state=1)),
        Operation("prompts: newest", prompts()),
        Operation("prompts: anywhere", prompts(), anywhere(newest_prompt)),
        Operation("prompts: task and tag", prompts(task="code", tag="checked")),
        Operation("search: a word in 1 of 100", prompts(query=COMMON_WORD)),
        Operation("search: a word in 1 of 1000", prompts(query=RARE_WORD)),
        Operation("search: a word in one prompt", prompts(query="case1234")),
        Operation("search: a word in most", prompts(query=_most_frequent_word())),
        Operation(
            "search: two words and a task", prompts(query=f"{COMMON_WORD} {_most_frequent_word()}", task="code")
        ),
        Operation("count: all comparisons", count_comparisons()),
        Operation("count: comparisons of a state", count_comparisons(state=1)),
        Operation("count: comparisons of a state and language", count_comparisons(state=1, lang="fi")),
        Operation("count: prompts of a search", count_prompts(query=COMMON_WORD)),
        Operation("count: values to filter by", lambda _: browse.tallied_values(project, Tally.Scope.PROMPT)),
        Operation("page: list of projects", answer("/projects/")),
        Operation("API: sources of a project", answer(f"/api/v1/projects/{PROJECT}/sources/")),
        Operation("claim: one language in twenty", without_language, with_language),
    ]


def _most_frequent_word() -> str:
    """The word that most paragraphs hold, and so most prompts."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT word FROM benchmark_paragraph, regexp_split_to_table(rtrim(content, '.'), ' ') AS word"
            " GROUP BY word ORDER BY count(DISTINCT id) DESC, word LIMIT 1"
        )
        return str(cursor.fetchone()[0])


@dataclass
class Measured:
    name: str
    p50: float
    p95: float
    cpu: float
    queries: set[int]


def measure(operation: Operation, repeats: int) -> Measured:
    from django.db import connection

    rng = random.Random(0)
    times, cpu, queries = [], [], set()
    sent = 0
    backend = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat")

    def cpu_seconds() -> float:
        """Of this process and of the one that Postgres runs for it."""
        return time.process_time() + int(backend.read_text().split()[0]) / 1e9

    def count(execute: Callable[..., Any], *statement: Any) -> Any:
        nonlocal sent
        sent += 1
        return execute(*statement)

    for number in range(WARM_UP + repeats):
        prepared = operation.prepare(rng)
        sent = 0
        with connection.execute_wrapper(count):
            cpu_before, began = cpu_seconds(), time.perf_counter()
            operation.call(prepared)
            took, cpu_after = time.perf_counter() - began, cpu_seconds()
        if number >= WARM_UP:
            times.append(took * 1000)
            cpu.append((cpu_after - cpu_before) * 1000)
            queries.add(sent)
    return Measured(operation.name, median(times), p95(times), median(cpu), queries)


def explain(operation: Operation) -> str:
    """How Postgres runs each of the operation's queries in their order, with what it read."""
    from django.db import connection, transaction

    plans: list[str] = []
    is_explaining = False

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal is_explaining
        if not is_explaining:
            is_explaining = True
            # It really runs, so that what it changed is taken back before it runs for the operation.
            asked = context["cursor"].cursor  # a prepared statement has another kind of cursor
            with transaction.atomic(), type(asked)(asked.connection) as cursor:
                cursor.execute("EXPLAIN (ANALYZE, BUFFERS) " + sql, params)
                plans.append(f"{sql.strip()}\n\n" + "\n".join(line for (line,) in cursor.fetchall()))
                transaction.set_rollback(True)
            is_explaining = False
        return execute(sql, params, many, context)

    prepared = operation.prepare(random.Random(0))
    with connection.execute_wrapper(wrapper):
        operation.call(prepared)
    heads = (f"── {operation.name}, query {number} of {len(plans)}" for number in range(1, len(plans) + 1))
    return "".join(f"{head}\n{plan}\n\n" for head, plan in zip(heads, plans, strict=True))


def plot(sizes: list[int], growth: dict[str, list[float]]) -> str:
    """An SVG: sizes across, p95 in milliseconds up, both in decades, and a line for what people may wait."""
    width, height, left, top, right, bottom = 900, 440, 60, 20, 540, 400
    low, high = 0.1, 1000.0

    def x(index: int) -> float:
        return left + (right - left) * index / max(1, len(sizes) - 1)

    def y(value: float) -> float:
        share = (math.log10(min(max(value, low), high)) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return bottom - (bottom - top) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for tick in (0.1, 1, 10, 100, 1000):
        parts.append(f'<path d="M{left} {y(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g} ms</text>')
    for index, size in enumerate(sizes):
        parts.append(f'<text x="{x(index):.1f}" y="{bottom + 18}" text-anchor="middle">{size:,}</text>')
    parts.append(f'<path d="M{left} {y(TARGET_MS):.1f}H{right}" stroke="#b00" stroke-dasharray="5 4"/>')
    parts.append(f'<text x="{left + 4}" y="{y(TARGET_MS) - 4:.1f}" fill="#b00">{TARGET_MS:g} ms</text>')
    # Names in the order of the lines' ends, evenly spread so that none covers another, each tied to its line.
    step = (bottom - top) / max(1, len(growth) - 1)
    for place, (name, values) in enumerate(sorted(growth.items(), key=lambda item: -item[1][-1])):
        colour, beside = f"hsl({place * 137 % 360} 65% 40%)", top + place * step
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(
            f'<path d="M{right} {y(values[-1]):.1f}L{right + 40} {beside:.1f}" stroke="{colour}" opacity=".4"/>'
        )
        parts.append(
            f'<text x="{right + 44}" y="{beside + 4:.1f}" fill="{colour}">{name} · {values[-1]:.1f} ms</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--explain", type=Path, help="write the plans of all queries at the largest size here")
    parser.add_argument("--pages", action="store_true", help="also GET every page at the largest size")
    parser.add_argument("--plot", type=Path, help="draw the growth into this SVG file")
    add_json_option(parser)
    options = parser.parse_args()
    sizes = sorted(options.sizes)
    made, figures = {}, {}
    pages: list[dict[str, Any]] = []
    with prepared_django():
        from benchmarks.scale_pages import addresses, measure_pages
        from benchmarks.scale_rows import grow, make_project

        project = make_project()
        for size in sizes:
            began = time.perf_counter()
            grow(project, size)
            made[size] = round(time.perf_counter() - began, 1)
            figures[size] = [measure(operation, options.repeats) for operation in operations()]
            print(f"{size:,} comparisons, made in {made[size]} s", flush=True)
            print_table(
                [
                    {
                        "what": row.name,
                        "p50 ms": row.p50,
                        "p95 ms": row.p95,
                        "CPU ms": row.cpu,
                        "queries": _counts(row.queries),
                    }
                    for row in figures[size]
                ]
            )
        if options.pages:
            pages = measure_pages(addresses())
            print(f"\npages of a project of {sizes[-1]:,} comparisons, slowest first")
            print_table([{name: value for name, value in row.items() if name != "slowest query"} for row in pages])
        if options.explain:
            options.explain.write_text("".join(explain(operation) for operation in operations()))
    names = [row.name for row in figures[sizes[0]]]
    growth = {name: [figures[size][index].p95 for size in sizes] for index, name in enumerate(names)}
    if options.plot:
        options.plot.write_text(plot(sizes, growth))
    state = machine()
    print(f"\np95 in ms; load average at the end: {state['load_average']}, {state['cores']} cores")
    print_table(
        [
            {"what": name} | {f"{size:,}": value for size, value in zip(sizes, growth[name], strict=True)}
            for name in names
        ]
    )
    write_json(
        options.json,
        {
            "sizes": {
                size: {
                    row.name: {
                        "p50 ms": row.p50,
                        "p95 ms": row.p95,
                        "CPU ms": row.cpu,
                        "queries": _counts(row.queries),
                    }
                    for row in rows
                }
                for size, rows in figures.items()
            },
            "pages": pages,
            "seconds to make": made,
            "machine": state,
        },
    )
    unequal = [
        name for index, name in enumerate(names) if len({max(figures[size][index].queries) for size in sizes}) > 1
    ]
    if unequal:
        raise SystemExit(f"the number of queries grows with the size: {', '.join(unequal)}")


def _counts(queries: set[int]) -> str:
    return f"{min(queries)}" if len(queries) == 1 else f"{min(queries)}–{max(queries)}"


if __name__ == "__main__":
    main()
