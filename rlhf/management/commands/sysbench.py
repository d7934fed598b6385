from __future__ import annotations

from rlhf.evaluation.sysbench import score_file
from rlhf.management.score_file import ScoreFileCommand


class Command(ScoreFileCommand):
    help = "SysBench: score judged sessions in the authors' shape."
    holds = "judged sessions"
    score_file = staticmethod(score_file)
