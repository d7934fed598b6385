from __future__ import annotations

from rlhf.evaluation.cfbench import score_file
from rlhf.management.score_file import ScoreFileCommand


class Command(ScoreFileCommand):
    help = "CFBench: score judged items in the authors' shape."
    holds = "judged items"
    score_file = staticmethod(score_file)
