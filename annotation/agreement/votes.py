"""The live votes of a project as arrays: what agreement and aggregation are computed from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from annotation.models import Annotator, Preference, Project

VERDICTS = (Preference.A, Preference.TIE, Preference.B, Preference.NEITHER)
IS_SIDE = np.array([True, False, True, False])
STRENGTHS = np.arange(-4.0, 5.0)

# Every vote has one code: nine graded ones in order of strength, then ungraded a, tie and b, then neither.
CODES = 13
VERDICT_OF_CODE = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2, 0, 1, 2, 3])
GRADED = slice(0, 9)

# A vote on two responses has part 0. A ranking votes on each two of its responses, i before k in content order: part
# 9·i + k. Repeats (round 1) measure one person against themselves; votes on gold items measure a person against what
# is known, on items that are easier than most: neither says how far people agree.
_VOTES = """
    SELECT j.comparison_id, j.annotator_id, (extract(epoch FROM j.created_at) * 1000000)::int8 AS at, 0::int8 AS part,
           CASE WHEN j.strength IS NOT NULL THEN j.strength + 4
                ELSE array_position(ARRAY['a', 'tie', 'b', 'neither'], j.preference::text) + 8 END::int8 AS code
      FROM annotation_judgment j
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_annotator n ON n.id = j.annotator_id
      LEFT JOIN annotation_assignment s ON s.id = j.assignment_id
     WHERE {live} AND j.preference <> 'ranked'
 UNION ALL
    SELECT j.comparison_id, j.annotator_id, (extract(epoch FROM j.created_at) * 1000000)::int8, 9 * (i - 1) + k - 1,
           CASE WHEN j.ranking[i] < j.ranking[k] THEN 9 WHEN j.ranking[i] = j.ranking[k] THEN 10 ELSE 11 END
      FROM annotation_judgment j
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_annotator n ON n.id = j.annotator_id
      LEFT JOIN annotation_assignment s ON s.id = j.assignment_id
     CROSS JOIN LATERAL generate_series(1, c.response_count - 1) i
     CROSS JOIN LATERAL generate_series(i + 1, c.response_count) k
     WHERE {live} AND c.response_count > 2 AND j.preference = 'ranked'
"""
LIVE = """c.project_id = {project} AND j.superseded_at IS NULL AND j.round = 0
       AND coalesce(s.kind, 'work') NOT IN ('gold', 'qualification')"""
_MET_BY = """ AND (n.is_human OR n.id = {annotator})
       AND c.id IN (SELECT mine.comparison_id FROM annotation_judgment mine
                     WHERE mine.annotator_id = {annotator} AND mine.superseded_at IS NULL)"""
_HEADER_BYTES, _TRAILER_BYTES = 19, 2


@dataclass(frozen=True)
class Votes:
    """Parallel arrays, one entry a vote, in order of comparison, part and annotator."""

    comparison: NDArray[np.int64]
    """Ids, as are `annotator`'s."""
    annotator: NDArray[np.int64]
    part: NDArray[np.int64]
    code: NDArray[np.int64]
    at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """When, in microseconds since 1970."""
    item: NDArray[np.int64] = field(init=False)
    """0 … items − 1: the comparison, or two responses of a ranking."""

    def __post_init__(self) -> None:
        is_new = np.ones(len(self.comparison), dtype=bool)
        is_new[1:] = (np.diff(self.comparison) != 0) | (np.diff(self.part) != 0)
        object.__setattr__(self, "item", np.cumsum(is_new) - 1)

    def __len__(self) -> int:
        return len(self.comparison)

    @property
    def verdict(self) -> NDArray[np.int64]:
        """Index into VERDICTS."""
        return VERDICT_OF_CODE[self.code]

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of each two votes on one item, the one with the smaller annotator id first."""
        ones, others = [], []
        sizes = np.bincount(self.item) if len(self) else np.zeros(0, dtype=int)
        for distance in range(1, int(sizes.max(initial=0))):
            one = np.flatnonzero(self.item[distance:] == self.item[:-distance])
            ones.append(one)
            others.append(one + distance)
        nothing = np.zeros(0, dtype=np.int64)
        return np.concatenate([nothing, *ones]), np.concatenate([nothing, *others])


def load_votes(project: Project, *, humans_only: bool = False, met_by: Annotator | None = None) -> Votes:
    """The project's live votes of round 0, gold items left out; one query.

    met_by: only the comparisons that this annotator judged, with their votes and other people's.

    """
    live = LIVE.format(project=int(project.pk)) + (" AND n.is_human" if humans_only else "")
    if met_by is not None:
        live += _MET_BY.format(annotator=int(met_by.pk))
    comparison, annotator, at, part, code = copy_integers(_VOTES.format(live=live), 5)
    order = np.lexsort((annotator, part, comparison))
    return Votes(*(column[order] for column in (comparison, annotator, part, code, at)))


def copy_integers(query: str, columns: int) -> NDArray[np.int64]:
    """The answer to a query whose columns are all bigint and never null, shape (columns, rows).

    It comes as Postgres's binary COPY, which with fields of one size is an array as it is: a hundred thousand rows
    take no more than their query. COPY takes no parameters; the query holds its values.
    """
    row = [("fields", ">i2")]
    for column in range(columns):
        row += [(f"size {column}", ">i4"), (f"value {column}", ">i8")]
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy:
        answer = b"".join(copy)
    rows = np.frombuffer(answer[_HEADER_BYTES : len(answer) - _TRAILER_BYTES], dtype=np.dtype(row))
    return np.array([rows[f"value {column}"] for column in range(columns)], dtype=np.int64)


def names_of(annotators: NDArray[np.int64]) -> dict[int, str]:
    """Names by id; a name that two of them share is told apart by their ids."""
    found = dict(Annotator.objects.filter(pk__in=np.unique(annotators).tolist()).values_list("pk", "name"))
    bearers = Counter(found.values())
    return {pk: name if bearers[name] == 1 else f"{name} #{pk}" for pk, name in found.items()}
