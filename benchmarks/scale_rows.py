"""A project of a million comparisons, made inside Postgres: prompts with four responses each, compared in four pairs.

Of the comparisons 30 % are judged, 1 % are judged by one of three (all of these by the first annotator), 2 % are
uncertain, the others are new. Every hundredth prompt has "lighthouse" in a response and every thousandth
"marzipan", each one has a word of its own, and the others are as frequent as words are. Everything follows from the
row's number.
"""

from __future__ import annotations

import random

from annotation import services
from annotation.models import Annotator, Batch, ComparisonEntry, Project, PromptEntry, PromptWords, ResponseSource
from benchmarks.people import PASSWORD, PROJECT

PER_PROMPT = 4
ANNOTATORS = 50
BATCHES = 10
PARAGRAPHS = 1000
COMMON_WORD = "lighthouse"
RARE_WORD = "marzipan"

# Even draws from 0 … 2³¹ − 1 that belong to a number.
_DRAW = "(hashint8({}) & 2147483647)"
_PROMPTS = f"""
INSERT INTO annotation_prompt
    (id, project_id, messages, "group", task, lang, topic, tags, content_sha256, created_at)
SELECT n, %(project)s, jsonb_build_array(jsonb_build_object('role', 'user', 'content', one.content || ' case' || n)),
       'group-' || n, (ARRAY['code', 'chat', 'maths', 'summary', 'rewrite'])[1 + {_DRAW.format("n")} %% 5],
       CASE WHEN {_DRAW.format("n + 1")} %% 20 = 0 THEN 'fi' WHEN n %% 4 = 0 THEN 'zh' ELSE 'en' END,
       'topic ' || {_DRAW.format("n + 2")} %% 40,
       CASE WHEN n %% 10 = 0 THEN ARRAY['checked'] ELSE '{{}}'::varchar[] END,
       encode(sha256(n::text::bytea), 'hex'), now() - make_interval(secs => 10000000 - n)
FROM generate_series(%(first)s::bigint, %(last)s) n
JOIN benchmark_paragraph one ON one.id = {_DRAW.format("n * 16")} %% {PARAGRAPHS}
"""
_RESPONSES = f"""
INSERT INTO annotation_response (id, prompt_id, source_id, sample_index, text, text_sha256, template_sha256,
                                 finish_reason, created_at)
SELECT {PER_PROMPT} * (n - 1) + k, n, %(source)s, k, t.text, encode(sha256(t.text::bytea), 'hex'), '', 'stop', now()
FROM generate_series(%(first)s::bigint, %(last)s) n
CROSS JOIN generate_series(1, {PER_PROMPT}) k
JOIN benchmark_paragraph one ON one.id = {_DRAW.format("n * 16 + k")} %% {PARAGRAPHS}
JOIN benchmark_paragraph two ON two.id = {_DRAW.format("n * 16 + k + 4")} %% {PARAGRAPHS}
JOIN benchmark_paragraph three ON three.id = {_DRAW.format("n * 16 + k + 8")} %% {PARAGRAPHS}
CROSS JOIN LATERAL (
    SELECT one.content || E'\\n\\n' || two.content || E'\\n\\n' || three.content || ' (' || n || '.' || k || ')'
           || CASE WHEN k = 1 AND n %% 100 = 0 THEN ' {COMMON_WORD}' ELSE '' END
           || CASE WHEN k = 2 AND n %% 1000 = 0 THEN ' {RARE_WORD}' ELSE '' END AS text
) t
"""
_COMPARISONS = f"""
INSERT INTO annotation_comparison (id, project_id, prompt_id, response_a_id, response_b_id, external_id, meta,
    batch_id, lang, tier, uncertainty, required_count, assigned_count, queue_key, created_at)
SELECT 4 * (p.id - 1) + k, p.project_id, p.id, 4 * (p.id - 1) + pair.a, 4 * (p.id - 1) + pair.b, '', '{{}}',
       %(first_batch)s + p.id %% {BATCHES}, p.lang,
       CASE drawn.kind WHEN 30 THEN 0 WHEN 31 THEN 1 WHEN 32 THEN 1 ELSE 2 END,
       CASE WHEN drawn.kind IN (31, 32) THEN 0.9 END,
       CASE WHEN drawn.kind = 30 THEN 3 ELSE 1 END, CASE WHEN drawn.kind <= 30 THEN 1 ELSE 0 END,
       {_DRAW.format("4 * p.id + k")} / 2147483648.0, now()
FROM annotation_prompt p
CROSS JOIN (VALUES (1, 1, 2), (2, 3, 4), (3, 1, 3), (4, 2, 4)) pair (k, a, b)
CROSS JOIN LATERAL (SELECT {_DRAW.format("7 * (4 * p.id + k)")} %% 100 AS kind) drawn
WHERE p.id BETWEEN %(first)s AND %(last)s
"""
_ASSIGNMENTS = f"""
INSERT INTO annotation_assignment (public_id, comparison_id, annotator_id, project_id, status, a_shown_on_left, slot,
    holds_place, skip_reason, leased_at, lease_expires_at, submitted_at)
SELECT gen_random_uuid(), c.id,
       %(first_annotator)s + CASE WHEN c.required_count = 3 THEN 0 ELSE {_DRAW.format("c.id")} %% {ANNOTATORS} END,
       c.project_id, 'submitted', c.id %% 2 = 0, 0, true, '', done.at - interval '20 seconds',
       done.at + interval '15 minutes', done.at
FROM annotation_comparison c
CROSS JOIN LATERAL (SELECT now() - make_interval(secs => {_DRAW.format("c.id + 3")} %% 2600000) AS at) done
WHERE c.prompt_id BETWEEN %(first)s AND %(last)s AND c.assigned_count = 1
"""
_JUDGMENTS = f"""
INSERT INTO annotation_judgment (public_id, comparison_id, annotator_id, assignment_id, preference, strength, note,
    is_late, decided_in_ms, meta, created_at)
SELECT gen_random_uuid(), a.comparison_id, a.annotator_id, a.id,
       CASE WHEN verdict.strength < 0 THEN 'a' WHEN verdict.strength > 0 THEN 'b' ELSE 'tie' END, verdict.strength, '',
       false, 20000, '{{}}', a.submitted_at
FROM annotation_assignment a
JOIN annotation_comparison c ON c.id = a.comparison_id
CROSS JOIN LATERAL (SELECT {_DRAW.format("a.comparison_id + 5")} %% 7 - 3 AS strength) verdict
WHERE c.prompt_id BETWEEN %(first)s AND %(last)s
"""
_TABLES = ("prompt", "response", "comparison", "assignment", "judgment")


def make_project() -> Project:
    """The empty project with its people, and the paragraphs of which its texts are made."""
    from django.contrib.auth.models import User
    from django.db import connection

    project = services.create_project(slug=PROJECT, name="Benchmark")
    # A gold item is due at every claim and there is none: the look-up is always made, and its number does not vary.
    project.gold_every = project.gold_every_at_first = 1
    project.save()
    ResponseSource.objects.create(name="source", kind="imported")
    for number in range(BATCHES):
        Batch.objects.create(project=project, name=f"week {number}")
    for number in range(ANNOTATORS):
        user = User.objects.create_user(f"annotator{number}", password=PASSWORD)
        services.add_member(project, user)
        services.annotator_for(user)
    services.add_member(project, User.objects.create_superuser("admin", password=PASSWORD))
    rng = random.Random(0)
    words = ["".join(rng.choices("bdfgklmnprst", k=1) + rng.choices("aeiou", k=1)) for _ in range(200)]
    vocabulary = ["".join(rng.choices(words, k=rng.choice([1, 2, 2, 3]))) for _ in range(8000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE benchmark_paragraph (id bigint PRIMARY KEY, content text NOT NULL)")
        rows = [(number, " ".join(rng.choices(vocabulary, weights, k=15)) + ".") for number in range(PARAGRAPHS)]
        cursor.executemany("INSERT INTO benchmark_paragraph VALUES (%s, %s)", rows)
    return project


def grow(project: Project, comparisons: int) -> None:
    """Add rows until the project has that many comparisons, and bring what is derived from them up to date."""
    from django.db import connection, transaction

    batch = Batch.objects.order_by("id").first()
    annotator = Annotator.objects.order_by("id").first()
    source = ResponseSource.objects.first()
    assert batch and annotator and source
    values = {
        "project": project.pk,
        "first": project.prompts.count() + 1,
        "last": comparisons // PER_PROMPT,
        "first_batch": batch.pk,
        "first_annotator": annotator.pk,
        "source": source.pk,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        # As an import does: the foreign keys hold by the way the rows are made.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("SET LOCAL work_mem = '256MB'")
        for statement in (_PROMPTS, _RESPONSES, _COMPARISONS, _ASSIGNMENTS, _JUDGMENTS):
            cursor.execute(statement, values)
        for table in _TABLES:
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('annotation_{table}', 'id'), max(id)) FROM annotation_{table}"
            )
    refresh_index()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


def refresh_index() -> None:
    """What services.refresh_browse_index does in the background, with its large indexes built at the end."""
    from django.db import connection

    indexed = [
        (model, index) for model in (PromptEntry, ComparisonEntry, PromptWords) for index in model._meta.indexes
    ]
    with connection.schema_editor() as editor:
        for model, index in indexed:
            editor.remove_index(model, index)
    while not services.refresh_browse_index(seconds=3600):
        pass
    with connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '512MB'")
    with connection.schema_editor() as editor:
        for model, index in indexed:
            editor.add_index(model, index)
