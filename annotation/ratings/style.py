"""What responses look like: length, headings, lists and bold, which win votes without being better.

The method of the public arenas: for each feature (a − b) / (a + b), in standard deviations over all votes, as a
covariate of the fit.
"""

from __future__ import annotations

import numpy as np

from annotation.agreement.votes import copy_integers
from annotation.models import Project
from annotation.ratings.battles import Battles, Floats, Ints

FEATURES = ("length", "headings", "lists", "bold")

# A fenced block is code: its comment signs are no headings. Postgres counts, so that no text leaves it.
_LOOKS = r"""
    SELECT r.id, length(r.text)::int8, regexp_count(plain.text, '(^|\n)#{{1,6}} ')::int8,
           regexp_count(plain.text, '(^|\n)[ \t]*([-*+]|\d{{1,3}}[.)])[ \t]+\S')::int8,
           regexp_count(plain.text, '\*\*[^*\n]+\*\*|__[^_\n]+__')::int8
      FROM annotation_response r
      JOIN annotation_prompt p ON p.id = r.prompt_id
     CROSS JOIN LATERAL (SELECT regexp_replace(r.text, '```.*?(```|$)', '', 'g') AS text) plain
     WHERE p.project_id = {project}
"""


def looks_of_responses(project: Project) -> tuple[Ints, Ints]:
    """Ids of a project's responses in order, and their counts by FEATURES, shape (responses, features); one query."""
    columns = copy_integers(_LOOKS.format(project=int(project.pk)), 1 + len(FEATURES))
    order = np.argsort(columns[0])
    return columns[0][order], columns[1:, order].T


def style_differences(battles: Battles, ids: Ints, looks: Ints) -> tuple[Floats, list[str]]:
    """The covariates of each vote and the names of those that vary at all, shape (votes, features that vary)."""
    if battles.one_response is None or battles.other_response is None:
        raise ValueError("load the battles with their responses")
    places = [np.searchsorted(ids, side) for side in (battles.one_response, battles.other_response)]
    columns, names = [], []
    # Feature by feature: all at once would take a matrix of every vote for each step of the arithmetic.
    for feature, name in enumerate(FEATURES):
        one, other = (looks[place, feature].astype(float) for place in places)
        total = one + other
        column = np.divide(one - other, total, out=np.zeros_like(total), where=total > 0)
        spread = column.std()
        if spread > 1e-9:
            columns.append(column / spread)
            names.append(name)
    return np.stack(columns, axis=1) if columns else np.zeros((len(battles), 0)), names
