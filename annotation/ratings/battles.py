"""Votes on pairs of sources as parallel arrays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from annotation.agreement.votes import copy_integers
from annotation.models import Project

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WON, TIED, LOST = 0, 1, 2

# A probability travels as a whole number of billionths.
_PER_PROBABILITY = 1_000_000_000
LARGEST_WEIGHT = 20.0
"""A vote never counts for more than this many average ones: a few rare pairs must not decide everything."""

# One row for each verdict on two responses of different sources; a ranking gives one for each pair in it. Gold items
# are there to measure people, and a repeat is the same person's word again: neither tells more about the sources.
_BATTLES = """
    SELECT hashtextextended(p."group", 0) AS grp, j.annotator_id, ra.source_id AS a, rb.source_id AS b,
           CASE j.preference WHEN 'a' THEN 0 WHEN 'b' THEN 2 ELSE 1 END::int8 AS verdict,
           coalesce(c.sampling_probability * {billion}, 0)::int8 AS probability
           {more_of_pairs}
      FROM annotation_judgment j
      JOIN annotation_annotator n ON n.id = j.annotator_id
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_prompt p ON p.id = c.prompt_id
      JOIN annotation_response ra ON ra.id = c.response_a_id
      JOIN annotation_response rb ON rb.id = c.response_b_id
     WHERE j.preference <> 'ranked' AND ra.source_id <> rb.source_id AND {counted}
    UNION ALL
    SELECT hashtextextended(p."group", 0), j.annotator_id, one.source_id, other.source_id,
           sign(j.ranking[one.position + 1] - j.ranking[other.position + 1])::int8 + 1,
           coalesce(c.sampling_probability * {billion}, 0)::int8
           {more_of_rankings}
      FROM annotation_judgment j
      JOIN annotation_annotator n ON n.id = j.annotator_id
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_prompt p ON p.id = c.prompt_id
     CROSS JOIN LATERAL ({responses}) one
     CROSS JOIN LATERAL ({responses}) other
     WHERE j.preference = 'ranked' AND one.position < other.position AND one.source_id <> other.source_id
       AND {counted}
"""
_RESPONSES = """SELECT 0 AS position, id, source_id FROM annotation_response WHERE id = c.response_a_id
        UNION ALL SELECT 1, id, source_id FROM annotation_response WHERE id = c.response_b_id
        UNION ALL SELECT further.position, r.id, r.source_id FROM annotation_furtherresponse further
                    JOIN annotation_response r ON r.id = further.response_id WHERE further.comparison_id = c.id"""
_VOTERS = {"all": "", "people": " AND n.is_human", "judges": " AND NOT n.is_human"}


@dataclass(frozen=True)
class Battles:
    """Parallel arrays, one entry a vote; sources, people and groups are numbered from 0."""

    one: Ints
    other: Ints
    verdict: Ints
    """Of `one`: WON, TIED or LOST."""
    person: Ints
    group: Ints
    """The unit of prompts whose judgments lean the same way."""
    weight: Floats
    """1 on average; the inverse of the probability with which the pair was drawn, where that is known."""
    at: Ints | None = None
    """Microseconds since 1970."""
    one_response: Ints | None = None
    other_response: Ints | None = None

    def __len__(self) -> int:
        return len(self.one)

    def where(self, kept: NDArray[np.bool_] | Ints) -> Battles:
        """Those votes alone; by their places, also in another order or several times."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        return replace(self, **{name: value[kept] for name, value in columns.items() if value is not None})


def load_battles(
    project: Project | Collection[Project],
    *,
    voters: str = "all",
    category: str | None = None,
    lang: str | None = None,
    groups: Collection[str] | None = None,
    pair: tuple[int, int] | None = None,
    study: int | None = None,
    with_times: bool = False,
    with_responses: bool = False,
) -> tuple[Battles, list[int]]:
    """The live votes of a project, or of several, and the ids of the sources that the numbers stand for; one query.

    voters: "people", "judges" (models) or "all". category is a prompt's task. groups keeps to the prompts of those
    groups, pair to the votes between two sources, study to the comparisons of one. Raises ValueError for other voters.
    """
    if voters not in _VOTERS:
        raise ValueError(f"voters is {voters!r}; it is one of {', '.join(_VOTERS)}")
    ids = [project.pk] if isinstance(project, Project) else [one.pk for one in project]
    counted = (
        f"c.project_id IN ({', '.join(str(int(pk)) for pk in ids) or 'NULL'}) AND NOT c.is_gold"
        " AND j.superseded_at IS NULL AND j.round = 0"
    ) + _VOTERS[voters]
    if category is not None:
        counted += f" AND p.task = {_literal(category)}"
    if lang is not None:
        counted += f" AND p.lang = {_literal(lang)}"
    if groups is not None:
        counted += f""" AND p."group" = ANY(ARRAY[{", ".join(map(_literal, groups))}]::text[])"""
    if study is not None:
        counted += f" AND c.id IN (SELECT comparison_id FROM annotation_studyitem WHERE study_id = {int(study)})"
    at = ", (extract(epoch FROM j.created_at) * 1000000)::int8" if with_times else ""
    more_of_pairs = at + (", ra.id, rb.id" if with_responses else "")
    more_of_rankings = at + (", one.id, other.id" if with_responses else "")
    query = _BATTLES.format(
        billion=_PER_PROBABILITY,
        more_of_pairs=more_of_pairs,
        more_of_rankings=more_of_rankings,
        counted=counted,
        responses=_RESPONSES,
    )
    if pair is not None:
        query = f"SELECT * FROM ({query}) votes WHERE (a, b) IN ({pair}, {pair[::-1]})"
    columns = list(copy_integers(query, 6 + with_times + 2 * with_responses))
    if with_times and not with_responses:
        columns += [None, None]
    elif with_responses and not with_times:
        columns.insert(6, None)
    group, person, one, other, verdict, probability, *rest = columns
    sources, numbers = np.unique(np.concatenate([one, other]), return_inverse=True)
    battles = Battles(
        numbers[: len(one)],
        numbers[len(one) :],
        verdict,
        np.unique(person, return_inverse=True)[1],
        np.unique(group, return_inverse=True)[1],
        inverse_probability_weights(probability / _PER_PROBABILITY),
        *rest,
    )
    return battles, sources.tolist()


def inverse_probability_weights(probability: Floats) -> Floats:
    """1/p, 1 on average over the votes whose p is known and 1 for the others (p = 0), cut at LARGEST_WEIGHT.

    What is cut off biases the ratings a little towards the pairs that were drawn often; what is kept keeps them from
    resting on a handful of votes (weights of Horvitz and Thompson 1952, truncated).
    """
    weight = np.ones(len(probability))
    known = probability > 0
    if known.any():
        inverse = 1 / probability[known]
        weight[known] = np.minimum(inverse / inverse.mean(), LARGEST_WEIGHT)
    return weight


def _literal(text: str) -> str:
    """A text as SQL writes it: COPY takes no parameters. Unicode escapes leave nothing to the session's settings."""
    return "U&'" + "".join(f"\\+{ord(character):06x}" for character in text if character != "\0") + "'"
