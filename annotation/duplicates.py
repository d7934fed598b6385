"""Texts that read nearly alike, found among many without comparing each with each.

A text is the set of its passages of five characters. MinHash (Broder 1997) gives two sets the same smallest hash with
a chance equal to their Jaccard similarity; in bands of six such hashes, two texts of similarity 0.8 share a band in
99.8 % of all cases, two of 0.5 in 27 %. Those that share one are then compared for good.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

PASSAGE_CHARS = 5
BANDS, HASHES_IN_BAND = 20, 6
ALIKE = 0.8
CANDIDATES_IN_GROUP = 4
TEXTS_KEPT = 30_000  # whose passages stay in memory: about 150 MB
PASSAGES_AT_ONCE = 20_000  # bounds the table of hashes of one text to 10 MB
TEXTS_AT_ONCE = 500

_random = np.random.default_rng(20_240_601)  # fixed: the same texts are alike whenever they are compared
_POSITIONS = _random.integers(1, 2**63, PASSAGE_CHARS, dtype=np.uint64) | np.uint64(1)
# Of 32 bits: processors multiply eight of them at once.
_FACTORS = _random.integers(1, 2**32, (BANDS * HASHES_IN_BAND, 1), dtype=np.uint32) | np.uint32(1)
_TERMS = _random.integers(0, 2**32, (BANDS * HASHES_IN_BAND, 1), dtype=np.uint32)
_MIXERS = _random.integers(1, 2**63, HASHES_IN_BAND, dtype=np.uint64) | np.uint64(1)

Hashes = NDArray[np.uint64]


def passages(text: str) -> Hashes:
    """The hashes of a text's passages, each once, ascending. Case and spacing do not count."""
    hashes = np.sort(_every_passage(text))
    return hashes[np.concatenate(([True], hashes[1:] != hashes[:-1]))]  # np.unique is five times slower here


def _every_passage(text: str) -> Hashes:
    codes = np.frombuffer(" ".join(text.casefold().split()).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    letters = codes.astype(np.uint64)
    if len(letters) < PASSAGE_CHARS:
        letters = np.pad(letters, (0, PASSAGE_CHARS - len(letters)))
    count = len(letters) - PASSAGE_CHARS + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for place, factor in enumerate(_POSITIONS):
        hashes += letters[place : place + count] * factor
    hashes ^= hashes >> np.uint64(32)
    return hashes


def similarity(a: Hashes, b: Hashes) -> float:
    """The share of passages that both have among those that either has."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def bands(hashes: Hashes) -> Hashes:
    """(BANDS,) of what two texts that are alike have at least one in common of, in the same place."""
    short = (hashes >> np.uint64(16)).astype(np.uint32)
    smallest = np.full(len(_FACTORS), np.iinfo(np.uint32).max, dtype=np.uint32)
    for start in range(0, len(short), PASSAGES_AT_ONCE):
        part = short[start : start + PASSAGES_AT_ONCE] * _FACTORS
        part += _TERMS
        np.minimum(smallest, part.min(axis=1), out=smallest)
    mixed = (smallest.astype(np.uint64).reshape(BANDS, HASHES_IN_BAND) * _MIXERS).sum(axis=1, dtype=np.uint64)
    return mixed ^ (mixed >> np.uint64(29))


def find_alike(
    texts: Iterable[tuple[int, str]],
    texts_of: Callable[[list[int]], dict[int, str]],
    *,
    alike: float = ALIKE,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, int, float]]:
    """(id, the first id that it is like, similarity) of texts given in ascending order of id.

    texts_of: reads texts once more, of the few that share a band with another. progress: is told how many were read.
    """
    ids: list[int] = []
    parts: list[Hashes] = []
    unread = iter(texts)
    while some := list(islice(unread, TEXTS_AT_ONCE)):
        ids += [pk for pk, _ in some]
        parts.append(np.stack([bands(_every_passage(text)) for _, text in some]))
        progress(len(ids))
    if not ids:
        return
    groups = _groups_of(np.concatenate(parts))
    parts.clear()
    candidates = iter(np.flatnonzero((groups >= 0).any(axis=1)))
    firsts: defaultdict[int, list[int]] = defaultdict(list)
    """By group, the first texts in it that are like no earlier one."""
    kept: OrderedDict[int, Hashes] = OrderedDict()
    while chunk := list(islice(candidates, TEXTS_AT_ONCE)):
        shared = {ids[row]: [int(group) for group in groups[row] if group >= 0] for row in chunk}
        wanted = {first for numbers in shared.values() for number in numbers for first in firsts.get(number, ())}
        missing = [pk for pk in wanted if pk not in kept]
        texts_read = texts_of([*shared, *missing])
        for pk in missing:
            kept[pk] = passages(texts_read[pk])
        for pk, numbers in shared.items():
            hashes = passages(texts_read[pk])
            known = {first for number in numbers for first in firsts.get(number, ())}
            found = max(((similarity(hashes, kept[first]), -first) for first in known), default=(0.0, 0))
            if found[0] >= alike:
                yield pk, -found[1], found[0]
                continue
            kept[pk] = hashes
            for number in numbers:
                if len(firsts[number]) < CANDIDATES_IN_GROUP:
                    firsts[number].append(pk)
        for pk in wanted:
            kept.move_to_end(pk)
        while len(kept) > TEXTS_KEPT:
            kept.popitem(last=False)
        progress(len(ids))


def _groups_of(table: Hashes) -> NDArray[np.int32]:
    """(n, BANDS) → (n, BANDS): the number of the group of rows with this band in this place, −1 for a row alone."""
    groups = np.full(table.shape, -1, dtype=np.int32)
    count = 0
    for place in range(table.shape[1]):
        order = np.argsort(table[:, place], kind="stable")
        column = table[order, place]
        begins = np.concatenate(([True], column[1:] != column[:-1]))
        number = np.cumsum(begins) - 1
        sizes = np.bincount(number)
        is_shared = sizes[number] > 1
        renumbered = np.cumsum(sizes > 1) - 1
        groups[order[is_shared], place] = count + renumbered[number[is_shared]]
        count += int((sizes > 1).sum())
    return groups
