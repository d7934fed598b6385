"""What a vote costs: the POST that stores it and answers with the next comparison, through real gunicorn and Postgres.

    python -m benchmarks.vote_round_trip [--annotators 1 8 32] [--votes 400] [--rounds 3]

Two lines of figures. Saturated: every annotator votes without a pause, so that the latencies of many are those of a
queue (the scripted annotators run on the same machine), and the CPU is the cost. At work: 32 annotators who think for
2 s, where the latencies are what a person waits. Every annotator has a session and holds two leases as a browser does.
CPU is what the kernel charged to gunicorn and to Postgres, divided by the votes; every figure is the median of the
rounds. Each comparison is new, so that no Markdown comes out of a cache. Everything happens in a temporary folder.
"""

from __future__ import annotations

import argparse

from benchmarks.measure import add_json_option, cpu_seconds, machine, median, p95, print_table, write_json
from benchmarks.people import TouchstoneAnnotator, at_once, fill, make_items
from benchmarks.servers import Served, prepared_django, touchstone

WARM_UP_VOTES = 5  # of each annotator in each round, not counted


def measure(site: Served, people: list[TouchstoneAnnotator], votes: int, think_seconds: float) -> dict[str, float]:
    before: list[float] = []
    times, wall = at_once(
        people,
        max(votes // len(people), 5),
        think_seconds=think_seconds,
        warm_up=WARM_UP_VOTES,
        on_start=lambda: before.extend([cpu_seconds(site.web_pid), cpu_seconds(site.database_pid)]),
    )
    return {
        "votes": len(times),
        "votes/s": len(times) / wall,
        "web CPU ms": (cpu_seconds(site.web_pid) - before[0]) / len(times) * 1000,
        "db CPU ms": (cpu_seconds(site.database_pid) - before[1]) / len(times) * 1000,
        "p50 ms": median(times) * 1000,
        "p95 ms": p95(times) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, nargs="*", default=[1, 8, 32], help="saturated, one line each")
    parser.add_argument("--votes", type=int, default=400, help="counted votes a round, over all annotators")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--thinking", type=int, default=32, help="annotators who think; 0 leaves this line out")
    parser.add_argument("--think-seconds", type=float, default=2.0)
    add_json_option(parser)
    options = parser.parse_args()
    cases = [(annotators, 0.0, options.rounds) for annotators in options.annotators]
    if options.thinking:
        # One round: it takes its time, whatever the machine.
        cases.append((options.thinking, options.think_seconds, 1))
    with prepared_django() as database_pid:
        assert database_pid is not None
        most = max(annotators for annotators, _, _ in cases)
        needed = sum(
            rounds * (max(options.votes, 5 * annotators) + annotators * WARM_UP_VOTES)
            for annotators, _, rounds in cases
        )
        fill(make_items(needed + 2 * most), most)
        rows = []
        with touchstone(database_pid) as site:
            people = [TouchstoneAnnotator(site.port, f"annotator{number}") for number in range(most)]
            for annotators, think_seconds, rounds in cases:
                measured = [measure(site, people[:annotators], options.votes, think_seconds) for _ in range(rounds)]
                row: dict[str, float] = {"annotators": annotators, "think s": think_seconds}
                row |= {name: median([figures[name] for figures in measured]) for name in measured[0]}
                row["votes"] = sum(int(figures["votes"]) for figures in measured)
                rows.append(row)
    state = machine()
    print_table(rows)
    print(f"load average at the end: {state['load_average']}, {state['cores']} cores")
    write_json(options.json, {"rows": rows, "machine": state})


if __name__ == "__main__":
    main()
