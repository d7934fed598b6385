"""What the browse pages read (annotation/models/browsing.py), and the triggers that note what changed."""

from __future__ import annotations

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.contrib.postgres.search
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

SEARCH_FUNCTIONS = """
-- The blocks of 2^10, 2^13 … 2^22 rows that an id lies in. A reader that goes from block to block, newest first, never
-- touches more rows than it shows times a small factor, however the matches are spread.
CREATE FUNCTION annotation_blocks(id bigint) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ARRAY['@0:' || (id >> 10), '@1:' || (id >> 13), '@2:' || (id >> 16), '@3:' || (id >> 19),
                 '@4:' || (id >> 22)]
$$;

-- Text with Han, kana and Hangul cut into overlapping pairs, since no blank says where their words end: 机器学习 becomes
-- 机器 器学 学习 习. The last character stands alone so that one character is found by its beginning; a query, in which
-- it would have to follow, leaves it out.
CREATE FUNCTION annotation_cjk_bigrams(content text, is_query boolean DEFAULT false) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(content) = length(content) OR content !~ '[々-〇぀-ヿ㐀-䶿一-鿿가-힯豈-﫿𠀀-𲎯]' THEN content ELSE (
        SELECT string_agg(
            CASE WHEN NOT is_cjk THEN letter
                 WHEN next_is_cjk THEN ' ' || letter || next_letter || ' '
                 WHEN is_query AND last_is_cjk THEN ' '
                 ELSE ' ' || letter || ' ' END,
            '' ORDER BY place)
        FROM (
            SELECT place, letter, is_cjk, lead(letter) OVER (ORDER BY place) AS next_letter,
                   coalesce(lead(is_cjk) OVER (ORDER BY place), false) AS next_is_cjk,
                   coalesce(lag(is_cjk) OVER (ORDER BY place), false) AS last_is_cjk
            FROM (
                SELECT place, letter,
                       code BETWEEN 12293 AND 12295 OR code BETWEEN 12352 AND 12543 OR code BETWEEN 13312 AND 19903
                       OR code BETWEEN 19968 AND 40959 OR code BETWEEN 44032 AND 55215
                       OR code BETWEEN 63744 AND 64255 OR code BETWEEN 131072 AND 205743 AS is_cjk
                FROM unnest(string_to_array(content, NULL)) WITH ORDINALITY AS letters(letter, place),
                     LATERAL (SELECT ascii(letter) AS code) coded
            ) classed
        ) paired
    ) END
$$;

-- English words are reduced to their stems where the prompt is in English or nobody says what it is in.
CREATE FUNCTION annotation_words(content text, lang text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    config regconfig := CASE WHEN lang = '' OR lang ILIKE 'en%' THEN 'pg_catalog.english' ELSE 'pg_catalog.simple' END;
BEGIN
    RETURN to_tsvector(config, annotation_cjk_bigrams(left(content, 200000)));
EXCEPTION WHEN program_limit_exceeded THEN  -- a vector holds one megabyte
    RETURN to_tsvector(config, annotation_cjk_bigrams(left(content, 40000)));
END $$;

-- What finds a word or a phrase in either way of reading; empty where it is too common a word in English.
CREATE FUNCTION annotation_search_term(term text) RETURNS tsquery LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    phrase text := '"' || replace(annotation_cjk_bigrams(term, true), '"', ' ') || '"';
    stemmed tsquery := websearch_to_tsquery('pg_catalog.english', phrase);
BEGIN
    IF length(btrim(term)) = 1 AND annotation_cjk_bigrams(term) <> term THEN
        RETURN (quote_literal(btrim(term)) || ':*')::tsquery;
    ELSIF numnode(stemmed) = 0 THEN
        RETURN stemmed;
    END IF;
    RETURN stemmed || websearch_to_tsquery('pg_catalog.simple', phrase);
END $$
"""
DROP_SEARCH_FUNCTIONS = """
DROP FUNCTION annotation_search_term, annotation_words, annotation_cjk_bigrams, annotation_blocks
"""

# One row of the note for every two thousand rows that a statement changed.
NOTE = """
CREATE FUNCTION annotation_note_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO annotation_browsechange (kind, ids)
    SELECT kind, array_agg(id)
    FROM (SELECT id, (row_number() OVER () - 1) / 2000 AS part FROM (SELECT DISTINCT {column} AS id FROM {rows}) d) ids,
         unnest(ARRAY[{kinds}]) AS kind
    GROUP BY kind, part;
    RETURN NULL;
END $$;
CREATE TRIGGER annotation_note_{name} AFTER {event} ON annotation_{table}
    REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION annotation_note_{name}()
"""
DROP_NOTE = """
DROP TRIGGER annotation_note_{name} ON annotation_{table};
DROP FUNCTION annotation_note_{name}()
"""
REREAD = "changed JOIN before USING (id) WHERE (changed.messages, changed.lang) IS DISTINCT FROM (before.messages, before.lang)"
NOTES = [
    {"name": name, "table": table, "event": event, "column": column, "kinds": kinds, "rows": rows, "tables": tables}
    for name, table, event, column, kinds, rows, tables in [
        ("new_prompts", "prompt", "INSERT", "id", "1, 2", "changed", "NEW TABLE AS changed"),
        ("edited_prompts", "prompt", "UPDATE", "id", "1", "changed", "NEW TABLE AS changed"),
        ("rewritten_prompts", "prompt", "UPDATE", "id", "2", REREAD, "NEW TABLE AS changed OLD TABLE AS before"),
        ("new_responses", "response", "INSERT", "prompt_id", "2", "changed", "NEW TABLE AS changed"),
        ("rewritten_responses", "response", "UPDATE", "prompt_id", "2", "changed", "NEW TABLE AS changed"),
        ("new_comparisons", "comparison", "INSERT", "id", "3", "changed", "NEW TABLE AS changed"),
        ("new_judgments", "judgment", "INSERT", "comparison_id", "3", "changed", "NEW TABLE AS changed"),
        ("superseded_judgments", "judgment", "UPDATE", "comparison_id", "3", "changed", "NEW TABLE AS changed"),
    ]
]

# Comparisons are updated by every claim: by row, so that those which change nothing that is shown cost a comparison.
NOTE_EDITED_COMPARISONS = """
CREATE FUNCTION annotation_note_edited_comparisons() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO annotation_browsechange (kind, ids) VALUES (3, ARRAY[NEW.id]);
    RETURN NULL;
END $$;
CREATE TRIGGER annotation_note_edited_comparisons AFTER UPDATE ON annotation_comparison
    FOR EACH ROW WHEN (
        (OLD.is_withdrawn, OLD.required_count, OLD.lang, OLD.skill) IS DISTINCT FROM
        (NEW.is_withdrawn, NEW.required_count, NEW.lang, NEW.skill) OR OLD.batch_id IS DISTINCT FROM NEW.batch_id
    ) EXECUTE FUNCTION annotation_note_edited_comparisons()
"""
NOTE_WHAT_IS_THERE = """
INSERT INTO annotation_browsechange (kind, ids)
SELECT kind, array_agg(id)
FROM (SELECT id, (row_number() OVER () - 1) / 2000 AS part FROM annotation_prompt) ids, unnest(ARRAY[1, 2]) AS kind
GROUP BY kind, part;
INSERT INTO annotation_browsechange (kind, ids)
SELECT 3, array_agg(id) FROM (SELECT id, (row_number() OVER () - 1) / 2000 AS part FROM annotation_comparison) ids
GROUP BY part
"""


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0007_authors_routes_and_views"),
    ]

    operations = [
        migrations.CreateModel(
            name="BrowseChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.PositiveSmallIntegerField(
                        choices=[(1, "prompts: marks"), (2, "prompts: words"), (3, "comparisons: marks")]
                    ),
                ),
                ("ids", django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name="StaleWords",
            fields=[
                (
                    "prompt",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.prompt",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="PromptWords",
            fields=[
                (
                    "prompt",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.prompt",
                    ),
                ),
                ("vector", django.contrib.postgres.search.SearchVectorField()),
            ],
            options={
                "indexes": [django.contrib.postgres.indexes.GinIndex(fields=["vector"], name="promptwords_vector")],
            },
        ),
        migrations.CreateModel(
            name="ComparisonEntry",
            fields=[
                (
                    "comparison",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.comparison",
                    ),
                ),
                (
                    "state",
                    models.PositiveSmallIntegerField(
                        choices=[
                            (0, "nothing to judge"),
                            (1, "not judged"),
                            (2, "partly judged"),
                            (3, "judged"),
                            (4, "withdrawn"),
                        ]
                    ),
                ),
                ("marks", django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["marks"], name="comparisonentry_marks"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PromptEntry",
            fields=[
                (
                    "prompt",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.prompt",
                    ),
                ),
                ("marks", django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["marks"], name="promptentry_marks"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Tally",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("scope", models.CharField(choices=[("p", "prompts"), ("c", "comparisons")], max_length=1)),
                ("dimension", models.CharField(max_length=20)),
                ("value", models.CharField(max_length=200)),
                ("count", models.BigIntegerField()),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("project"),
                        models.F("scope"),
                        models.F("dimension"),
                        models.OrderBy(models.F("count"), descending=True),
                        name="tally_largest",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("project", "scope", "dimension", "value"), name="tally_once")
                ],
            },
        ),
        migrations.RunSQL(SEARCH_FUNCTIONS, DROP_SEARCH_FUNCTIONS),
        *[migrations.RunSQL(NOTE.format(**note), DROP_NOTE.format(**note)) for note in NOTES],
        migrations.RunSQL(NOTE_EDITED_COMPARISONS, DROP_NOTE.format(name="edited_comparisons", table="comparison")),
        migrations.RunSQL(NOTE_WHAT_IS_THERE, migrations.RunSQL.noop),
    ]
