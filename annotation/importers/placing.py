"""Puts batches of rows into the tables. Everything is found again by its content, so nothing goes in twice."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from annotation.importers import packing
from annotation.importers.copying import (
    Copying,
    IdStock,
    copy_in,
    copy_packed,
    find,
    foreign_keys_vouched_for,
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
_Said = tuple[str, list[int] | None]  # (preference, ranking)


@dataclass(slots=True)
class _Placed:
    """A row on its way into the tables, with the ids that it has got so far; no comparison is 0."""

    record: Record
    row: PackedRow
    prompt: int = 0
    responses: list[int] = field(default_factory=list)
    comparison: int = 0


class _KnownComparisons(NamedTuple):
    """By the id in the file; `sides` holds ids of responses in content order."""

    ids: dict[str, int]
    sides: dict[str, list[int]]


class Placing:
    """Puts batches into the tables, in the order that foreign keys ask for. Needs an open transaction.

    Of each batch the database is first asked for all that it knows. Then responses, comparisons and judgments are put
    together, and Postgres writes each of them while the next are: also while the next batch is received.
    """

    def __init__(self, project: Project, file_name: str, done: Imported, copying: Copying) -> None:
        self.project = project
        self.file_name = file_name
        self.done = done
        self.copying = copying
        self.now = timezone.now()
        self.packed_now = packing.timestamp(self.now)
        self.batch_id: int | None = None
        self.source_ids: dict[str, int] = {}
        self.annotators: dict[str, tuple[int, bool]] = {}
        self.response_ids, self.comparison_ids = IdStock(Response), IdStock(Comparison)
        self.to_review: set[int] = set()
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
            self._add_rows(rows)
            self._add_conversations(talks)

    def _add_rows(self, rows: list[_Placed]) -> None:
        wanted = self._wanted_prompts(rows)
        compared = [placed for placed in rows if len(placed.row.sides) > 1]
        self.finish()
        self._learn_sources(rows)
        self._learn_annotators(rows)
        new_prompts = self._add_prompts(rows, wanted)
        responses = self._known_responses({placed.prompt for placed in rows} - new_prompts)
        comparisons = self._known_comparisons([placed.row.external_id for placed in compared])
        judgments = self._known_judgments(comparisons.ids.values())
        self.response_ids.fill(sum(len(placed.row.sides) for placed in rows))
        self.comparison_ids.fill(len(compared))
        if any(placed.row.external_id not in comparisons.ids for placed in compared):
            self._make_batch()
        # From here on the connection is not ours.
        self._add_responses(rows, responses)
        self._add_comparisons(compared, comparisons)
        self._add_judgments(compared, set(comparisons.ids.values()), judgments)
        self._add_ratings(rows, {pk for _, _, pk in responses})

    def finish(self) -> None:
        """Wait for what Postgres still writes."""
        self.copying.finish()
        if self.to_review:
            mark_for_review(self.to_review)
            self.to_review.clear()

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

    def _wanted_prompts(self, rows: list[_Placed]) -> dict[PromptKey, bytes]:
        wanted: dict[PromptKey, bytes] = {}
        for placed in rows:
            if placed.row.prompt_key not in self.masked_prompts:
                wanted.setdefault(placed.row.prompt_key, placed.row.prompt)
        return wanted

    def _add_prompts(self, rows: list[_Placed], wanted: dict[PromptKey, bytes]) -> set[int]:
        """Sets each row's prompt; gives the new ones. A prompt may be added by hand at this moment: the one that was
        first stands."""
        with connection.cursor() as cursor, foreign_keys_vouched_for(self.copying.vouches):
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

    def _known_responses(self, old_prompts: set[int]) -> list[tuple[ResponseKey, int, int]]:
        """What is told apart, sample index and id. Of several that are alike the first one comes last."""
        found = find(
            "SELECT id, prompt_id, source_id, sample_index, coalesce(nullif(original_sha256, ''), text_sha256),"
            " messages FROM annotation_response WHERE prompt_id = ANY(%s) ORDER BY id DESC FOR KEY SHARE",
            old_prompts,
        )
        return [
            ((prompt, source, sha256, "" if messages is None else digest(json.loads(messages))), index, pk)
            for pk, prompt, source, index, sha256, messages in found
        ]

    def _add_responses(self, rows: list[_Placed], known: list[tuple[ResponseKey, int, int]]) -> None:
        """Sets each row's responses. The same text by the same source to the same prompt is one response, however
        often it is compared."""
        ids: dict[ResponseKey, int] = {}
        samples: dict[tuple[int, int], int] = defaultdict(int)
        for key, index, pk in known:
            ids[key] = pk
            samples[key[:2]] = max(samples[key[:2]], index + 1)
        new: list[bytes] = []
        response, now, source_ids, fresh_ids = packing.response, self.packed_now, self.source_ids, self.response_ids
        for placed in rows:
            prompt = placed.prompt
            for source_name, sha256, messages_sha256, fields in placed.row.sides:
                source = source_ids[source_name]
                key = (prompt, source, sha256, messages_sha256)
                pk = ids.get(key, 0)
                if not pk:
                    pk = ids[key] = next(fresh_ids)
                    index = samples[prompt, source]
                    samples[prompt, source] = index + 1
                    new.append(response(pk, prompt, source, index, now, fields))
                placed.responses.append(pk)
        self.copying.start(Response._meta.db_table, packing.RESPONSE, new)
        self.done.responses += len(new)

    def _add_comparisons(self, rows: list[_Placed], known: _KnownComparisons) -> None:
        """Sets the comparison of each row: new, or found by its id in the file."""
        ids, sides = dict(known.ids), known.sides
        new: list[bytes] = []
        further: list[tuple[int, int, int]] = []
        project, batch, now = self.project.pk, self.batch_id or 0, self.packed_now
        for placed in rows:
            row, responses, external_id = placed.row, placed.responses, placed.row.external_id
            if external_id not in sides:
                pk = ids[external_id] = next(self.comparison_ids)
                sides[external_id] = responses
                places = 0 if row.is_settled else draw_required_count(self.project)
                place = placed.prompt, responses, batch, places, random.random()
                new.append(packing.comparison(pk, project, *place, now, row.comparison))
                if len(responses) > 2:
                    further += [(pk, position, response) for position, response in enumerate(responses[2:], 2)]
            elif sides[external_id] == responses:
                self.done.already_there += 1
            else:
                self.done.skip(placed.record, f"the id {external_id} is taken by another comparison of this project")
                continue
            placed.comparison = ids[external_id]
        self.copying.start(Comparison._meta.db_table, packing.COMPARISON, new)
        if further:
            self.copying.finish()
            with foreign_keys_vouched_for(self.copying.vouches):
                copy_in(FurtherResponse, "comparison_id position response_id", further)
        self.done.comparisons += len(new)

    def _known_comparisons(self, external_ids: list[str]) -> _KnownComparisons:
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
        return _KnownComparisons({external_id: pk for external_id, pk, *_ in found}, sides)

    def _make_batch(self) -> None:
        """The batch that this file's comparisons came in with, made where there is a first one."""
        if self.batch_id is None:
            name = f"{self.file_name[:160]}, {timezone.localtime(self.now):%Y-%m-%d %H:%M}"
            self.batch_id = Batch.objects.get_or_create(project=self.project, name=name)[0].pk

    # ── What was said ────────────────────────────────────────────────────────────────────────────────────────────

    def _known_judgments(self, comparisons: Collection[int]) -> dict[tuple[int, int], _Said]:
        """By comparison and annotator."""
        if not comparisons:
            return {}
        found = find(
            "SELECT comparison_id, annotator_id, preference, ranking FROM annotation_judgment"
            " WHERE comparison_id = ANY(%s) AND superseded_at IS NULL AND round = 0",
            comparisons,
        )
        return {(comparison, person): (preference, ranking) for comparison, person, preference, ranking in found}

    def _add_judgments(
        self, rows: list[_Placed], old_comparisons: set[int], known: dict[tuple[int, int], _Said]
    ) -> None:
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
        packed = [
            judgment(public_id, comparison, annotator, now, fields)
            for public_id, (comparison, annotator, fields) in zip(random_uuids(len(new)), new, strict=True)
        ]
        self.copying.start(Judgment._meta.db_table, packing.JUDGMENT, packed)
        self.done.judgments += len(new)
        if new:
            self.to_review |= to_review

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
        self.copying.finish()
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
        with foreign_keys_vouched_for(self.copying.vouches):
            copy_in(Rating, "response_id annotator_id aspect value label low high note created_at", new)
        self.done.ratings += len(new)

    def _add_conversations(self, talks: list[tuple[PackedTalk, list[_Placed]]]) -> None:
        if not talks:
            return
        self.copying.finish()
        found = find(
            "SELECT external_id FROM annotation_conversation WHERE project_id = %s AND external_id = ANY(%s)",
            self.project.pk,
            {talk.external_id for talk, _ in talks},
        )
        known = {external_id for (external_id,) in found}
        new = {talk.external_id: (talk, turns) for talk, turns in talks if talk.external_id not in known}
        pks = reserve_ids(Conversation, len(new))
        with foreign_keys_vouched_for(self.copying.vouches):
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
