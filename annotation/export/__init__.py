"""From judgments to files and training rows.

`consensus` says what became of each judged pair, `kinds` and `tables` what a file holds, `files` writes it, `asking`
reads the rules for it. Postgres builds an exported file itself, so a row never becomes a Python object and memory does
not grow with the number of rows; `training` builds the same rows in Python, for data sets that are frozen.
"""

from annotation.export.asking import REASON_WORDS, ExportForm, RulesForm
from annotation.export.consensus import ExportError, Rules
from annotation.export.files import Counted, Exported, count_export, count_verdicts, export_preferences
from annotation.export.kinds import TABLE_KINDS, TRAINING_KINDS, USABLE, Kind
from annotation.export.training import is_tie, judged_rows, training_rows

__all__ = [
    "REASON_WORDS",
    "TABLE_KINDS",
    "TRAINING_KINDS",
    "USABLE",
    "Counted",
    "ExportError",
    "ExportForm",
    "Exported",
    "Kind",
    "Rules",
    "RulesForm",
    "count_export",
    "count_verdicts",
    "export_preferences",
    "is_tie",
    "judged_rows",
    "training_rows",
]
