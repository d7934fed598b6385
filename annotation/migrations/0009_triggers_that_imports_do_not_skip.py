"""Imports vouch for their foreign keys, and the setting that this takes skips triggers, except those marked so."""

from __future__ import annotations

from django.db import migrations

TRIGGERS = [
    ("prompt", "annotation_note_new_prompts"),
    ("prompt", "annotation_note_edited_prompts"),
    ("prompt", "annotation_note_rewritten_prompts"),
    ("response", "annotation_note_new_responses"),
    ("response", "annotation_note_rewritten_responses"),
    ("comparison", "annotation_note_new_comparisons"),
    ("comparison", "annotation_note_edited_comparisons"),
    ("judgment", "annotation_note_new_judgments"),
    ("judgment", "annotation_note_superseded_judgments"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0008_browse_index"),
    ]

    operations = [
        migrations.RunSQL(
            f"ALTER TABLE annotation_{table} ENABLE ALWAYS TRIGGER {name}",
            f"ALTER TABLE annotation_{table} ENABLE TRIGGER {name}",
        )
        for table, name in TRIGGERS
    ]
