"""What a judge of constraints is asked, in our own words, and how its answer is read.

One prompt for CFBench and SysBench: what was asked, the answer, and numbered constraints, each to be answered with a
reason and yes or no. Constraints are told apart by their numbers, because data sets hold some twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rlhf.evaluation.constraint_sets import Exercise
from rlhf.evaluation.fb_bench import Criterion, Failure, UnusableJudgmentError, Verdict, parse_judgement
from rlhf.evaluation.fb_bench_judge import object_in

_PARTS = {
    "en": {
        "system": "System message, which the model was to follow in every turn",
        "history": "Conversation so far",
        "user": "User",
        "assistant": "Model",
        "question": "Instruction, by the user",
        "reference": "A reference answer, for orientation only",
        "answer": "Answer, by the model: this is what you judge",
        "criteria": "Constraints",
        "end": "End",
    },
    "zh": {
        "system": "系统消息：模型在每一轮都必须遵循",
        "history": "此前的对话",
        "user": "用户",
        "assistant": "模型",
        "question": "用户的指令",
        "reference": "参考答案：仅供对照",
        "answer": "模型的回答：评判对象",
        "criteria": "约束",
        "end": "结束",
    },
}
_ROLES = {
    "en": "You are a strict examiner of whether an answer keeps to constraints. Judge only the ANSWER, constraint by "
    "constraint.",
    "zh": "你是一名严格的评审员，负责检查回答是否满足约束。请只针对“评判对象”，逐条给出结论。",
}
_RULES = {
    "en": """How to answer:
1. Judge every constraint, and only these. Use the constraint's number as its key.
2. "reason" says briefly why. It must not be empty.
3. "result" is "yes" or "no" and nothing else. A constraint that is met only in part is "no".
4. Reply with one JSON object and nothing before or after it, in this form:""",
    "zh": """输出要求：
1. 逐条评判上述全部约束，不得增加或遗漏；以约束的序号作为键。
2. “评判理由”简要说明依据，不能为空。
3. “评判结果”只能是“是”或“否”；只满足一部分的，一律为“否”。
4. 只输出一个 JSON 对象，前后不要有任何其他文字，格式如下：""",
}
FIELDS = {"en": ("reason", "result"), "zh": ("评判理由", "评判结果")}


def judge_messages(
    exercise: Exercise, answer: str, language: str, history: Sequence[tuple[str, str]] = ()
) -> list[dict[str, str]]:
    """One user message in "zh" or "en".

    history: question and the model's answer of each turn before. CFBench's reference is shown, as its authors do;
    SysBench's own answers are not.
    """
    words = _PARTS[language]

    def part(name: str, text: str) -> str:
        return f"[{words[name]}]\n{text}\n[{words['end']}]"

    parts = [_ROLES[language]]
    if system := exercise.details.get("system"):
        parts.append(part("system", system))
    if history:
        said = [f"{words['user']}: {question}\n{words['assistant']}: {reply}" for question, reply in history]
        parts.append(part("history", "\n\n".join(said)))
    parts.append(part("question", exercise.query))
    if exercise.reference and exercise.session is None:
        parts.append(part("reference", exercise.reference))
    parts.append(part("answer", answer))
    numbered = enumerate(exercise.criteria, 1)
    parts.append(part("criteria", "\n".join(f"{number}. {text}" for number, (text, *_kinds) in numbered)))
    reason, result = FIELDS[language]
    skeleton = {str(number): {reason: "", result: ""} for number in range(1, len(exercise.criteria) + 1)}
    parts.append(f"{_RULES[language]}\n{json.dumps(skeleton, ensure_ascii=False, indent=1)}")
    return [{"role": "user", "content": "\n\n".join(parts)}]


def read_judgment(text: str, exercise: Exercise) -> tuple[Verdict, ...]:
    """The verdicts in what a judge said, in the constraints' order. Raises UnusableJudgmentError."""
    value = object_in(text)
    if isinstance(value, dict):
        value = _by_number(value)
    numbers = [Criterion(str(number)) for number in range(1, len(exercise.criteria) + 1)]
    return parse_judgement(value, numbers)


_NUMBER = re.compile(r"\D{0,12}?(\d{1,4})\D{0,2}")


def _by_number(value: dict[str, Any]) -> dict[str, Any]:
    """`constraint 2`, `第2条` and `2.` are 2."""
    numbered: dict[str, Any] = {}
    for key, entry in value.items():
        hit = _NUMBER.fullmatch(key.strip())
        number = str(int(hit[1])) if hit else key
        if number in numbered:
            raise UnusableJudgmentError(Failure.WRONG_SHAPE, f"constraint {number} stands there twice")
        numbered[number] = entry
    return numbered
