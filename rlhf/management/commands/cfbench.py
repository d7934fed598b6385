from __future__ import annotations

from rlhf.evaluation.cfbench import score_file
from rlhf.evaluation.constraint_sets import parse_cfbench
from rlhf.management.constraint_command import ConstraintCommand
from rlhf.models import Benchmark


class Command(ConstraintCommand):
    help = "CFBench: score judged instructions, or have a model answer the data set and a judge tick the constraints."
    judged_file = "judged instructions in the authors' shape"
    kind = Benchmark.CFBENCH
    score_file = staticmethod(score_file)
    parse = staticmethod(parse_cfbench)
