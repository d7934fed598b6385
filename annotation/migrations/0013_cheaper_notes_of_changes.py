"""The notes of changes are grouped by blocks of ids: a vote pays a third of what numbering its one row cost."""

from __future__ import annotations

from django.db import migrations

NOTE = """
CREATE OR REPLACE FUNCTION annotation_note_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO annotation_browsechange (kind, ids)
    SELECT {kind}, array_agg(DISTINCT {column}) FROM {rows} GROUP BY {groups};
    RETURN NULL;
END $$
"""
REREAD = "changed JOIN before USING (id) WHERE (changed.messages, changed.lang) IS DISTINCT FROM (before.messages, before.lang)"
BOTH = "changed CROSS JOIN (VALUES (1), (2)) AS kinds (kind)"
NOTES = [
    {"name": name, "kind": kind, "column": column, "rows": rows, "groups": groups}
    for name, kind, column, rows, groups in [
        ("new_prompts", "kind", "id", BOTH, "kind, id >> 11"),
        ("edited_prompts", "1", "id", "changed", "id >> 11"),
        ("rewritten_prompts", "2", "id", REREAD, "id >> 11"),
        ("new_responses", "2", "prompt_id", "changed", "prompt_id >> 11"),
        ("rewritten_responses", "2", "prompt_id", "changed", "prompt_id >> 11"),
        ("new_comparisons", "3", "id", "changed", "id >> 11"),
        ("new_judgments", "3", "comparison_id", "changed", "comparison_id >> 11"),
        ("superseded_judgments", "3", "comparison_id", "changed", "comparison_id >> 11"),
    ]
]


class Migration(migrations.Migration):
    dependencies = [("annotation", "0012_who_wrote_what_is_compared")]
    operations = [migrations.RunSQL(NOTE.format(**note), migrations.RunSQL.noop) for note in NOTES]
