"""Reading frozen data sets; services/snapshots.py makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from django.core.files.storage import storages
from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf.models import DatasetSnapshot

SPLITS = ("train", "eval")


def snapshot_path(sha256: str, split: str) -> str:
    """Where a split lies in the storage: under the hash of its content, so that it can never change."""
    return f"{sha256}/{split}.jsonl"


def snapshot_rows(snapshot: DatasetSnapshot, split: str) -> Iterator[dict[str, Any]]:
    """The frozen rows of "train" or "eval", one at a time."""
    with storages["snapshots"].open(snapshot_path(snapshot.sha256, split)) as file:
        for line in file:
            yield json.loads(line)


def check_snapshot(snapshot: DatasetSnapshot) -> None:
    """Raise DomainError where the stored files are not the ones that were frozen."""
    digest = hashlib.sha256()
    for split in SPLITS:
        with storages["snapshots"].open(snapshot_path(snapshot.sha256, split)) as file:
            for chunk in file.chunks():
                digest.update(chunk)
    if digest.hexdigest() != snapshot.sha256:
        problem = gettext("the files of data set %(name)s have changed since they were frozen; freeze it anew")
        raise DomainError(problem % {"name": snapshot.name})
