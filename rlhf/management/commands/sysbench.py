from __future__ import annotations

from rlhf.evaluation.constraint_sets import parse_sysbench
from rlhf.evaluation.sysbench import score_file
from rlhf.management.constraint_command import ConstraintCommand
from rlhf.models import Benchmark


class Command(ConstraintCommand):
    help = "SysBench: score judged sessions, or have a model answer the data set and a judge tick the constraints."
    judged_file = "judged sessions in the authors' shape"
    kind = Benchmark.SYSBENCH
    score_file = staticmethod(score_file)
    parse = staticmethod(parse_sysbench)
