"""What a leaderboard costs beside other libraries, and how often its intervals hold the truth.

    python -m benchmarks.leaderboard speed --peers /path/to/scratch/venv/bin/python
    python -m benchmarks.leaderboard coverage

`speed` fits a million drawn votes over a hundred models. Peers (evalica, arena-rank) fit the same arrays in the other
environment; both sides are timed without reading the file, best of three. `coverage` draws 200 leaderboards whose
strengths are known, with many voters and with few. There every vote is right with the Bradley–Terry probability, but
votes are not independent: the draw that decides one is sometimes its prompt's, sometimes its person's, so that both
lean.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import django
import numpy as np

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

VOTES, MODELS, PEOPLE, PROMPTS, RESPONSES = 1_000_000, 100, 5_000, 50_000, 200_000

_PEERS = """
import json, sys, time
import numpy as np
votes = np.load(sys.argv[1])
one, other, verdict = votes["one"], votes["other"], votes["verdict"]

def best(run):
    times = []
    for _ in range(3):
        began = time.perf_counter(); run(); times.append(time.perf_counter() - began)
    return min(times)

found = {}
try:
    import evalica
    names = [f"m{i}" for i in range(int(votes["count"]))]
    xs, ys = [names[i] for i in one], [names[i] for i in other]
    winner = {0: evalica.Winner.X, 1: evalica.Winner.Draw, 2: evalica.Winner.Y}
    ws = [winner[v] for v in verdict.tolist()]
    found["evalica bradley_terry"] = best(lambda: evalica.bradley_terry(xs, ys, ws))
    found["evalica elo"] = best(lambda: evalica.elo(xs, ys, ws))
except ImportError as error:
    found["evalica"] = str(error)
try:
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset
    names = [f"m{i}" for i in range(int(votes["count"]))]
    frame = pd.DataFrame({
        "model_a": [names[i] for i in one], "model_b": [names[i] for i in other],
        "winner": pd.Categorical.from_codes(verdict, ["model_a", "tie", "model_b"]).astype(str),
    })
    def arena():
        data = PairDataset.from_pandas(frame)
        model = BradleyTerry(n_competitors=len(data.competitors))
        return model.compute_ratings_and_cis(data, significance_level=0.05)
    arena()
    found["arena-rank ratings and intervals"] = best(arena)
except Exception as error:
    found["arena-rank"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "coverage"])
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--boards", type=int, default=200)
    parser.add_argument("--people", type=int, nargs="*", default=[40, 5], help="voters of a board of `coverage`")
    arguments = parser.parse_args()
    django.setup()
    if arguments.what == "speed":
        print(json.dumps(speed(arguments.peers), indent=1))
    for people in arguments.people if arguments.what == "coverage" else []:
        print(json.dumps(coverage(arguments.boards, people), indent=1))
    return 0


def best(run: Callable[[], object], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


def speed(peers: Path | None) -> dict[str, object]:
    from annotation.leaderboard import Choices, board_of
    from annotation.ratings import bradley_terry, elo
    from annotation.ratings.battles import Battles

    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.6, MODELS)
    one = rng.integers(0, MODELS, VOTES)
    other = (one + rng.integers(1, MODELS, VOTES)) % MODELS
    chance = 1 / (1 + np.exp(truth[other] - truth[one]))
    verdict = np.where(rng.random(VOTES) < 0.2, 1, np.where(rng.random(VOTES) < chance, 0, 2))
    battles = Battles(
        one, other, verdict, rng.integers(0, PEOPLE, VOTES), rng.integers(0, PROMPTS, VOTES), np.ones(VOTES)
    )
    names = [f"m{number}" for number in range(MODELS)]

    def fit(ties: str) -> bradley_terry.Fit:
        return bradley_terry.fit_strengths(bradley_terry.rows_of_votes(battles, MODELS, ties), ties)

    found: dict[str, object] = {"megabytes before": _megabytes()}
    found["fit, ties half (s)"] = best(lambda: fit("half"))
    found["fit, Davidson (s)"] = best(lambda: fit("davidson"))
    found["fit and sandwich intervals (s)"] = best(lambda: board_of(battles, names, Choices()))
    found["fit and bootstrap intervals (s)"] = best(lambda: board_of(battles, names, Choices(intervals="bootstrap")))
    ids = np.arange(RESPONSES)
    looks = np.column_stack([rng.integers(0, most, RESPONSES) + 1 for most in (3000, 6, 20, 12)])
    written = replace(
        battles,
        one_response=rng.integers(0, RESPONSES, VOTES),
        other_response=rng.integers(0, RESPONSES, VOTES),
    )
    for ties in ("half", "davidson"):
        run = partial(board_of, written, names, Choices(ties=ties, control=True), (ids, looks))
        found[f"fit and intervals, style held equal, ties {ties} (s)"] = best(run, times=1)
    found["Elo (s)"] = best(lambda: elo.rate_in_order(battles, MODELS))
    found["Elo and its intervals (s)"] = best(lambda: board_of(battles, names, Choices(method="elo")), times=1)
    found["megabytes at most"] = _megabytes()
    if peers:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "votes.npz"
            np.savez(path, one=one, other=other, verdict=verdict, count=MODELS)
            done = subprocess.run([str(peers), "-c", _PEERS, str(path)], capture_output=True, text=True, check=True)
        found["peers"] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def coverage(boards: int, people: int) -> dict[str, object]:
    from annotation.leaderboard import POINTS_PER_NAT, Choices, board_of
    from annotation.ratings.battles import Battles

    models, prompts, votes = 8, 150, 2400
    hits: dict[str, list[bool]] = {"sandwich": [], "bootstrap": []}
    for number in range(boards):
        rng = np.random.default_rng(number)
        truth = rng.normal(0, 0.6, models)
        truth -= truth.mean()
        one = rng.integers(0, models, votes)
        other = (one + rng.integers(1, models, votes)) % models
        one, other = np.minimum(one, other), np.maximum(one, other)
        person, prompt = rng.integers(0, people, votes), rng.integers(0, prompts, votes)
        # One draw for each (prompt, pair) and each (person, pair): who shares it votes alike.
        by_prompt = rng.random((prompts, models, models))[prompt, one, other]
        by_person = rng.random((people, models, models))[person, one, other]
        which = rng.random(votes)
        decides = np.where(which < 0.3, by_prompt, np.where(which < 0.5, by_person, rng.random(votes)))
        verdict = np.where(decides < 1 / (1 + np.exp(truth[other] - truth[one])), 0, 2)
        battles = Battles(one, other, verdict, person, prompt, np.ones(votes))
        for kind, held in hits.items():
            board = board_of(battles, [str(model) for model in range(models)], Choices(intervals=kind))
            for row in board.standings:
                if row.lower is not None and row.upper is not None:
                    held.append(row.lower <= 1000 + POINTS_PER_NAT * truth[int(row.source)] <= row.upper)
    return {
        "boards": boards,
        "votes each": votes,
        "people": people,
        **{
            f"{kind}: share of 95 % intervals that hold the truth": float(np.mean(held)) for kind, held in hits.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
