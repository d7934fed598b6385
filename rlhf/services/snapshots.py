"""Frozen data sets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import IO

from django.contrib.auth.models import User
from django.core.files import File
from django.core.files.storage import storages
from django.db import IntegrityError, connection, transaction
from django.utils.text import slugify
from django.utils.translation import gettext

from annotation.export import judged_rows
from annotation.models import Judgment, Project, Prompt
from annotation.services import DomainError
from rlhf.models import DatasetSnapshot
from rlhf.score_scales import Scores, measure
from rlhf.services.prompt_evaluations import held_out_groups
from rlhf.snapshots import SPLITS, snapshot_path


def create_snapshot(
    project: Project,
    name: str,
    *,
    eval_share: float = 0.1,
    humans_only: bool = True,
    created_by: User | None = None,
) -> DatasetSnapshot:
    """Freeze every judged comparison of a project as two JSONL files, split by group.

    Groups are ordered by the hash of their name and the first `eval_share` of them are held out, so that the same
    group is on the same side in each snapshot as far as the share allows; so are all that automatic evaluation asks
    about. Raises DomainError where nothing is judged,
    where the name is taken or where the share is outside 0 … 0.9.
    """
    if not name or name != slugify(name):
        raise DomainError(
            gettext("the name %(name)r must be of lower-case letters, digits and hyphens") % {"name": name}
        )
    if not 0 <= eval_share <= 0.9:
        raise DomainError(gettext("the held-out share %(share)s is outside 0 … 0.9") % {"share": eval_share})
    if DatasetSnapshot.objects.filter(name=name).exists():
        raise DomainError(
            gettext("there is a data set named %(name)s already; data sets never change, so take another name")
            % {"name": name}
        )
    try:
        return _freeze(project, name, eval_share, humans_only, created_by)
    except OSError as error:
        raise DomainError(
            gettext(
                "the data set could not be written (%(reason)s); nothing was left behind and the judgments are safe: "
                "make room and freeze it again"
            )
            % {"reason": error.strerror or error}
        ) from error


def _freeze(
    project: Project, name: str, eval_share: float, humans_only: bool, created_by: User | None
) -> DatasetSnapshot:
    with transaction.atomic(), tempfile.TemporaryFile("w+b") as train, tempfile.TemporaryFile("w+b") as held_out:
        if connection.in_atomic_block and not connection.savepoint_ids:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        files = {"train": train, "eval": held_out}
        counts = {"train": 0, "eval": 0}
        kept_out = held_out_groups(project)
        eval_groups = _eval_groups(project, eval_share, humans_only) | kept_out
        prompts: set[int] = set()
        judgments = 0
        scores: dict[tuple[int, bytes], Scores] = {}  # once for each response, however many pairs it is in
        for row in judged_rows(project, humans_only=humans_only):
            split = "eval" if row["group"] in eval_groups else "train"
            files[split].write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            counts[split] += 1
            prompts.add(row["prompt_id"])
            judgments += row["judgments"]
            if split == "train":
                for side in filter(None, (row["a"], row["b"])):
                    if "scores" in side:
                        text = hashlib.sha256(side["text"].encode()).digest()
                        scores[row["prompt_id"], text] = side["scores"]
        if kept_out and counts["eval"] and not counts["train"]:
            raise DomainError(
                gettext(
                    "every judged comparison of %(name)s is of a prompt that is held out or that automatic evaluation "
                    "asks; judge others first, or end a plan"
                )
                % {"name": project.name}
            )
        if not counts["train"]:
            raise DomainError(
                gettext("%(name)s has no judged comparison to freeze; judge some first") % {"name": project.name}
            )
        digest = hashlib.sha256()
        for split in SPLITS:
            files[split].seek(0)
            while chunk := files[split].read(1 << 20):
                digest.update(chunk)
        # The path holds the content's hash: whatever an interrupted or a concurrent attempt left there is the same.
        _store(digest.hexdigest(), files)
        try:
            return DatasetSnapshot.objects.create(
                name=name,
                project=project,
                sha256=digest.hexdigest(),
                eval_share=eval_share,
                train_rows=counts["train"],
                eval_rows=counts["eval"],
                prompt_count=len(prompts),
                judgment_count=judgments,
                humans_only=humans_only,
                score_measures=measure(scores.values()),
                created_by=created_by,
            )
        except IntegrityError:
            raise DomainError(
                gettext("somebody froze a data set named %(name)s just now; take another name") % {"name": name}
            ) from None


def _store(sha256: str, files: Mapping[str, IO[bytes]]) -> None:
    storage = storages["snapshots"]
    begun = []
    try:
        for split in SPLITS:
            path, file = snapshot_path(sha256, split), files[split]
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if storage.exists(path):
                if storage.size(path) == size:
                    continue
                storage.delete(path)  # a crash cut it short
            begun.append(path)
            storage.save(path, File(file))
    except OSError:
        for path in begun:
            with contextlib.suppress(OSError):
                storage.delete(path)
        raise


def _eval_groups(project: Project, eval_share: float, humans_only: bool) -> set[str]:
    judgments = Judgment.objects.filter(comparison__project=project, superseded_at=None)
    if humans_only:
        judgments = judgments.filter(annotator__is_human=True)
    judged = judgments.values("comparison__prompt")
    groups = set(Prompt.objects.filter(pk__in=judged).values_list("group", flat=True))
    ordered = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    count = round(len(ordered) * eval_share)
    if eval_share and len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    return set(ordered[:count])
