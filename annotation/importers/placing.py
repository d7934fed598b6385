"""Puts batches of rows into the tables. Everything is found again by its content, so nothing goes in twice."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.utils import timezone

from annotation.importers import packing
from annotation.importers.copying import (
    copy_in,
    copy_packed,
    find,
    foreign_keys_vouched_for,
    may_vouch_for_foreign_keys,
    random_uuids,
    reserve_ids,
)
from annotation.importers.imported import Imported
from annotation.importers.packing import PackedRow, PackedTalk
from annotation.importers.parser_process import Packed
from annotation.importers.reading import Record
from annotation.importers.rows import Score, digest
from annotation.models import (
    Annotator,
    Batch,
    Comparison,
    Conversation,
    FurtherResponse,
    Judgment,
    Project,
    Rating,
    Response,
    ResponseSource,
    SourceKind,
    Turn,
)
from annotation.services.places import draw_required_count
from annotation.services.quality import mark_for_review

REMEMBERED_NAMES = 10_000

PromptKey = tuple[str, str]  # (content_sha256, group)
ResponseKey = tuple[int, int, str, str]  # (prompt id, source id, text_sha256, digest of own messages)


@dataclass(slots=True)
class _Placed:
    """A row on its way into the tables, with the ids that it has got so far; no comparison is 0."""

    record: Record
    row: PackedRow
    prompt: int = 0
    responses: list[int] = field(default_factory=list)
    comparison: int = 0


class Placing:
    """Puts batches into the tables, in the order that foreign keys ask for. Needs an open transaction."""

    def __init__(self, project: Project, file_name: str, done: Imported) -> None:
        self.project = project
        self.file_name = file_name
        self.done = done
        self.now = timezone.now()
        self.packed_now = packing.timestamp(self.now)
        self.batch_id: int | None = None
        self.source_ids: dict[str, int] = {}
        self.annotators: dict[str, tuple[int, bool]] = {}
        self.vouches = may_vouch_for_foreign_keys()
        # What was masked since is still found by what the file says.
        masked = find(
            'SELECT original_sha256, "group", id FROM annotation_prompt'
            " WHERE project_id = %s AND original_sha256 <> '' FOR KEY SHARE",
            project.pk,
        )
        self.masked_prompts = {(sha256, group): pk for sha256, group, pk in masked}
        find("SELECT id FROM annotation_project WHERE id = %s FOR KEY SHARE", project.pk)

    def add(self, batch: list[Packed]) -> None:
        rows: list[_Placed] = []
        talks: list[tuple[PackedTalk, list[_Placed]]] = []
        for record, packed, reason in batch:
            if packed is None:
                self.done.rows += 1
                self.done.skip(record, reason)
            elif isinstance(packed, PackedRow):
                rows.append(_Placed(record, packed))
            else:
                talks.append((packed, [_Placed(record, PackedRow._make(turn)) for turn in packed.turns]))
                rows += talks[-1][1]
        self.done.rows += len(rows)
        for placed in rows:
            for annotator, reason in placed.row.skipped:
                self.done.skip(placed.record, reason, annotator)
        if rows:
            self._learn_sources(rows)
            self._learn_annotators(rows)
            new_prompts = self._add_prompts(rows)
            old_responses = self._add_responses(rows, new_prompts)
            old_comparisons = self._add_comparisons([placed for placed in rows if len(placed.responses) > 1])
            self._add_judgments(rows, old_comparisons)
            self._add_ratings(rows, old_responses)
            self._add_conversations(talks)

    # ── Who ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _learn_sources(self, rows: list[_Placed]) -> None:
        """Ids by name in the file. A model that can be asked here keeps its name to itself: the imported author of
        the same name need not be the same model."""
        if len(self.source_ids) > REMEMBERED_NAMES:
            self.source_ids.clear()
        names = {side[0] for placed in rows for side in placed.row.sides} - self.source_ids.keys()
        if not names:
            return
        others = ResponseSource.objects.filter(name__in=names).exclude(kind=SourceKind.IMPORTED)
        taken = set(others.values_list("name", flat=True))
        stored_as = {name: f"{name} (imported)" if name in taken else name for name in names}
        ResponseSource.objects.bulk_create(
            [ResponseSource(name=name, kind=SourceKind.IMPORTED) for name in sorted(stored_as.values())],
            ignore_conflicts=True,
        )
        found = find(
            "SELECT name, id FROM annotation_responsesource WHERE name = ANY(%s) FOR KEY SHARE", stored_as.values()
        )
        ids = dict(found)
        self.source_ids |= {name: ids[stored] for name, stored in stored_as.items()}

    def _learn_annotators(self, rows: list[_Placed]) -> None:
        """(id, is human) by name, within this project; the first row that names somebody says what they are."""
        if len(self.annotators) > REMEMBERED_NAMES:
            self.annotators.clear()
        kinds: dict[str, bool] = {}
        for placed in rows:
            for verdict in placed.row.verdicts:
                if verdict[0] not in self.annotators:
                    kinds.setdefault(verdict[0], verdict[1])
            for score in placed.row.scores:
                if score[0] not in self.annotators:
                    kinds.setdefault(score[0], score[1])
        if not kinds:
            return
        Annotator.objects.bulk_create(
            [Annotator(project=self.project, name=name, is_human=is_human) for name, is_human in kinds.items()],
            ignore_conflicts=True,
        )
        found = find(
            "SELECT name, id, is_human FROM annotation_annotator WHERE project_id = %s AND name = ANY(%s)"
            " FOR KEY SHARE",
            self.project.pk,
            kinds,
        )
        self.annotators |= {name: (pk, is_human) for name, pk, is_human in found}

    def _annotator(self, record: Record, name: str, is_human: bool) -> int | None:
        """The id, or None, and the reason reported, where the name is known as the other kind."""
        pk, is_known_as_human = self.annotators[name]
        if is_human == is_known_as_human:
            return pk
        kind = "person" if is_known_as_human else "model"
        self.done.skip(
            record, f"is known in this project as a {kind}; the verdict that says otherwise is left out", name
        )
        return None

    # ── What ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_prompts(self, rows: list[_Placed]) -> set[int]:
        """Sets each row's prompt; gives the new ones. A prompt may be added by hand at this moment: the one that was
        first stands."""
        wanted: dict[PromptKey, bytes] = {}
        for placed in rows:
            if placed.row.prompt_key not in self.masked_prompts:
                wanted.setdefault(placed.row.prompt_key, placed.row.prompt)
        with connection.cursor() as cursor, foreign_keys_vouched_for(self.vouches):
            cursor.execute(
                "CREATE TEMPORARY TABLE IF NOT EXISTS imported_prompt ON COMMIT DROP AS"
                ' SELECT messages, "group", lang, tags, content_sha256 FROM annotation_prompt WITH NO DATA'
            )
            copy_packed("imported_prompt", packing.PROMPT, wanted.values())
            cursor.execute(
                """
                INSERT INTO annotation_prompt (project_id, messages, "group", task, lang, tags, content_sha256,
                                               created_at)
                SELECT %s, messages, "group", '', lang, tags, content_sha256, %s FROM imported_prompt
                ON CONFLICT (project_id, content_sha256, "group") DO NOTHING
                RETURNING content_sha256, "group", id
                """,
                [self.project.pk, self.now],
            )
            ids = {(sha256, group): pk for sha256, group, pk in cursor.fetchall()}
            cursor.execute("TRUNCATE imported_prompt")
        self.done.prompts += len(ids)
        new = set(ids.values())
        if len(ids) < len(wanted):
            found = find(
                'SELECT content_sha256, "group", id FROM annotation_prompt'
                " WHERE project_id = %s AND content_sha256 = ANY(%s) FOR KEY SHARE",
                self.project.pk,
                {sha256 for sha256, _ in wanted.keys() - ids.keys()},
            )
            ids |= {(sha256, group): pk for sha256, group, pk in found}
        ids |= self.masked_prompts
        for placed in rows:
            placed.prompt = ids[placed.row.prompt_key]
        return new

    def _add_responses(self, rows: list[_Placed], new_prompts: set[int]) -> set[int]:
        """Sets each row's responses; gives those that were there before. The same text by the same source to the same
        prompt is one response, however often it is compared."""
        ids: dict[ResponseKey, int] = {}
        samples: dict[tuple[int, int], int] = defaultdict(int)
        found = find(
            "SELECT id, prompt_id, source_id, sample_index, coalesce(nullif(original_sha256, ''), text_sha256),"
            " messages FROM annotation_response WHERE prompt_id = ANY(%s) ORDER BY id DESC FOR KEY SHARE",
            {placed.prompt for placed in rows} - new_prompts,
        )
        for pk, prompt, source, index, sha256, messages in found:
            ids[prompt, source, sha256, "" if messages is None else digest(json.loads(messages))] = pk
            samples[prompt, source] = max(samples[prompt, source], index + 1)
        old = set(ids.values())
        pks = list(ids.values())
        numbers = {key: number for number, key in enumerate(ids)}  # in pks, to which the new ones are added
        new: list[tuple[int, int, int, bytes]] = []
        for placed in rows:
            prompt = placed.prompt
            for source_name, sha256, messages_sha256, fields in placed.row.sides:
                source = self.source_ids[source_name]
                key = (prompt, source, sha256, messages_sha256)
                number = numbers.get(key)
                if number is None:
                    number = numbers[key] = len(numbers)
                    index = samples[prompt, source]
                    samples[prompt, source] = index + 1
                    new.append((prompt, source, index, fields))
                placed.responses.append(number)
        new_pks = reserve_ids(Response, len(new))
        response, now = packing.response, self.packed_now
        with foreign_keys_vouched_for(self.vouches):
            copy_packed(
                Response._meta.db_table,
                packing.RESPONSE,
                [
                    response(pk, prompt, source, index, now, fields)
                    for pk, (prompt, source, index, fields) in zip(new_pks, new, strict=True)
                ],
            )
        self.done.responses += len(new)
        pks += new_pks
        for placed in rows:
            placed.responses = [pks[number] for number in placed.responses]
        return old

    def _add_comparisons(self, rows: list[_Placed]) -> set[int]:
        """Sets the comparison of each row that has one: new, or found by its id in the file. Gives those found."""
        external_ids = [placed.row.external_id for placed in rows]
        ids, sides = self._known_comparisons(external_ids)
        old = set(ids.values())
        pks = iter(reserve_ids(Comparison, len(set(external_ids) - ids.keys())))
        new: list[bytes] = []
        further: list[tuple[int, int, int]] = []
        project, now = self.project.pk, self.packed_now
        for placed, external_id in zip(rows, external_ids, strict=True):
            row, responses = placed.row, placed.responses
            known = sides.get(external_id)
            if known is None:
                pk = ids[external_id] = next(pks)
                sides[external_id] = responses
                places = 0 if row.is_settled else draw_required_count(self.project)
                place = placed.prompt, responses, self._batch(), places, random.random()
                new.append(packing.comparison(pk, project, *place, now, row.comparison))
                if len(responses) > 2:
                    further += [(pk, position, response) for position, response in enumerate(responses[2:], 2)]
            elif known == responses:
                self.done.already_there += 1
            else:
                self.done.skip(placed.record, f"the id {external_id} is taken by another comparison of this project")
                continue
            placed.comparison = ids[external_id]
        with foreign_keys_vouched_for(self.vouches):
            copy_packed(Comparison._meta.db_table, packing.COMPARISON, new)
            if further:
                copy_in(FurtherResponse, "comparison_id position response_id", further)
        self.done.comparisons += len(new)
        return old

    def _known_comparisons(self, external_ids: list[str]) -> tuple[dict[str, int], dict[str, list[int]]]:
        """Ids, and ids of the responses in content order, by the id in the file."""
        found = find(
            "SELECT external_id, id, response_a_id, response_b_id, response_count FROM annotation_comparison"
            " WHERE project_id = %s AND external_id = ANY(%s) FOR KEY SHARE",
            self.project.pk,
            external_ids,
        )
        sides = {external_id: [a, b] for external_id, _, a, b, _ in found}
        rankings = {pk: sides[external_id] for external_id, pk, _, _, count in found if count > 2}
        if rankings:
            for pk, response in find(
                "SELECT comparison_id, response_id FROM annotation_furtherresponse WHERE comparison_id = ANY(%s)"
                " ORDER BY comparison_id, position",
                rankings,
            ):
                rankings[pk].append(response)
        return {external_id: pk for external_id, pk, *_ in found}, sides

    def _batch(self) -> int:
        """The batch that this file's comparisons came in with, made where there is a first one."""
        if self.batch_id is None:
            name = f"{self.file_name[:160]}, {timezone.localtime(self.now):%Y-%m-%d %H:%M}"
            self.batch_id = Batch.objects.get_or_create(project=self.project, name=name)[0].pk
        return self.batch_id

    # ── What was said ────────────────────────────────────────────────────────────────────────────────────────────

    def _add_judgments(self, rows: list[_Placed], old_comparisons: set[int]) -> None:
        known: dict[tuple[int, int], tuple[str, list[int] | None]] = {}
        if old_comparisons:
            for comparison, person, preference, ranking in find(
                "SELECT comparison_id, annotator_id, preference, ranking FROM annotation_judgment"
                " WHERE comparison_id = ANY(%s) AND superseded_at IS NULL AND round = 0",
                old_comparisons,
            ):
                known[comparison, person] = (preference, ranking)
        new: list[tuple[int, int, bytes]] = []
        to_review = set()
        for placed in rows:
            if len(placed.row.verdicts) > 1 or placed.comparison in old_comparisons:
                to_review.add(placed.comparison)
            for name, is_human, preference, ranking, fields in placed.row.verdicts if placed.comparison else ():
                annotator = self._annotator(placed.record, name, is_human)
                if annotator is None:
                    continue
                key, said = (placed.comparison, annotator), (preference, ranking)
                if key not in known:
                    known[key] = said
                    new.append((*key, fields))
                elif known[key] != said:
                    self.done.skip(placed.record, "judged it otherwise before; that stands", name)
        judgment, now = packing.judgment, self.packed_now
        with foreign_keys_vouched_for(self.vouches):
            copy_packed(
                Judgment._meta.db_table,
                packing.JUDGMENT,
                [
                    judgment(public_id, comparison, annotator, now, fields)
                    for public_id, (comparison, annotator, fields) in zip(random_uuids(len(new)), new, strict=True)
                ],
            )
        self.done.judgments += len(new)
        if new and to_review:
            mark_for_review(to_review)

    def _add_ratings(self, rows: list[_Placed], old_responses: set[int]) -> None:
        seen = set(old_responses)
        for placed in rows:
            if len(placed.responses) == 1:
                self.done.already_there += placed.responses[0] in seen
                self.done.single_responses += placed.responses[0] not in seen
                seen.add(placed.responses[0])
        rated = [placed for placed in rows if placed.row.scores]
        if not rated:
            return
        known: dict[tuple[int, int, str], tuple[float | None, str]] = {}
        for response, person, aspect, value, label in find(
            "SELECT response_id, annotator_id, aspect, value, label FROM annotation_rating"
            " WHERE response_id = ANY(%s)",
            old_responses,
        ):
            known[response, person, aspect] = (value, label)
        new: list[tuple[Any, ...]] = []
        for placed in rated:
            for score in (Score(*values) for values in placed.row.scores):
                annotator = self._annotator(placed.record, score.annotator, score.is_human)
                if annotator is None:
                    continue
                key, said = (placed.responses[score.position], annotator, score.aspect), (score.value, score.label)
                if key not in known:
                    known[key] = said
                    new.append((*key, *said, score.low, score.high, score.note, self.now))
                elif known[key] != said:
                    self.done.skip(placed.record, "rated it otherwise before; that stands", score.annotator)
        with foreign_keys_vouched_for(self.vouches):
            copy_in(Rating, "response_id annotator_id aspect value label low high note created_at", new)
        self.done.ratings += len(new)

    def _add_conversations(self, talks: list[tuple[PackedTalk, list[_Placed]]]) -> None:
        if not talks:
            return
        found = find(
            "SELECT external_id FROM annotation_conversation WHERE project_id = %s AND external_id = ANY(%s)",
            self.project.pk,
            {talk.external_id for talk, _ in talks},
        )
        known = {external_id for (external_id,) in found}
        new = {talk.external_id: (talk, turns) for talk, turns in talks if talk.external_id not in known}
        pks = reserve_ids(Conversation, len(new))
        with foreign_keys_vouched_for(self.vouches):
            copy_in(
                Conversation,
                "id public_id project_id task lang external_id created_at",
                (
                    (pk, public_id, self.project.pk, "", talk.lang, talk.external_id, self.now)
                    for pk, public_id, (talk, _) in zip(pks, random_uuids(len(new)), new.values(), strict=True)
                ),
            )
            copy_in(
                Turn,
                "conversation_id position prompt_id kept_response_id scenario feedback created_at",
                (
                    (pk, position, placed.prompt, placed.responses[0], "", "", self.now)
                    for pk, (_, turns) in zip(pks, new.values(), strict=True)
                    for position, placed in enumerate(turns)
                ),
            )
        self.done.conversations += len(new)
