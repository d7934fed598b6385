"""What an FB-Bench judge is asked, in our own words and the authors' structure, and how its answer is read."""

from __future__ import annotations

import json
import re
from typing import Any

from rlhf.evaluation.fb_bench import Failure, Item, UnusableJudgmentError, Verdict, parse_judgement

MAX_ANSWER_CHARS = 200_000
_MAX_DEPTH_ERRORS = (ValueError, RecursionError)

_ENGLISH = """You are a strict examiner of conversations. A user asked a question, a model answered, the user gave \
feedback, and the model answered a second time. Judge only the SECOND answer, criterion by criterion.

[Question, by the user]
{query}
[End of the question]

[First answer, by the model]
{first_response}
[End of the first answer]

[Feedback, by the user]
{feedback}
[End of the feedback]

[Second answer, by the model: this is what you judge]
{second_response}
[End of the second answer]

[Criteria]
{criteria}
[End of the criteria]

How to answer:
1. Judge every criterion, and only these. Copy each criterion's text exactly as a key.
2. "judgement reason" says briefly why. It must not be empty.
3. "judgement result" is "yes" or "no" and nothing else. A criterion that is met only in part is "no".
4. Copy "weight" as it stands below.
5. Reply with one JSON object and nothing before or after it, in this form:
{skeleton}"""

_CHINESE = """你是一名严格的对话评审员。用户提出了问题，模型作了回答，用户给出反馈后，模型又作了第二轮回答。\
请只针对第二轮回答，逐条依据评判标准给出结论。

【用户的问题】
{query}
【问题结束】

【模型的第一轮回答】
{first_response}
【第一轮回答结束】

【用户的反馈】
{feedback}
【反馈结束】

【模型的第二轮回答：评判对象】
{second_response}
【第二轮回答结束】

【评判标准】
{criteria}
【评判标准结束】

输出要求：
1. 逐条评判上述全部标准，不得增加或遗漏；以标准原文作为键，一字不改。
2. “评判理由”简要说明依据，不能为空。
3. “评判结果”只能是“是”或“否”；只满足一部分的，一律为“否”。
4. “weight”照抄下方给出的值，不要改动。
5. 只输出一个 JSON 对象，前后不要有任何其他文字，格式如下：
{skeleton}"""

_TEMPLATES = {"en": _ENGLISH, "zh": _CHINESE}
_FIELDS = {"en": ("judgement reason", "judgement result"), "zh": ("评判理由", "评判结果")}


def judge_messages(item: Item, second_response: str, language: str) -> list[dict[str, str]]:
    """One user message in "zh" or "en". The reference answer is not in it: a judge ticks, it does not compare."""
    reason, result = _FIELDS[language]
    skeleton = {criterion.text: {reason: "", result: "", "weight": criterion.weight} for criterion in item.checklist}
    # Not str.format on anything that holds their texts: a brace in one of them is only a brace.
    parts = {
        "query": item.query,
        "first_response": item.first_response,
        "feedback": item.feedback,
        "second_response": second_response,
        "criteria": "\n".join(f"{number}. {criterion.text}" for number, criterion in enumerate(item.checklist, 1)),
        "skeleton": json.dumps(skeleton, ensure_ascii=False, indent=1),
    }
    text = re.sub(r"\{(\w+)\}", lambda hit: parts[hit[1]], _TEMPLATES[language])
    return [{"role": "user", "content": text}]


def read_judgment(text: str, item: Item) -> tuple[Verdict, ...]:
    """The verdicts in what a judge said, in the checklist's order. Raises UnusableJudgmentError.

    Accepted besides the bare object: one in a fence, and one after the thoughts of a reasoning model.
    """
    return parse_judgement(object_in(text), item.checklist)


_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*(?:json|JSON)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def object_in(text: str) -> Any:
    """The JSON object in what a judge said. Raises UnusableJudgmentError: NOTHING, PROSE, HALF_JSON, WRONG_SHAPE."""
    text = _THOUGHTS.sub("", text[:MAX_ANSWER_CHARS]).strip()
    if not text:
        raise UnusableJudgmentError(Failure.NOTHING, "the judge said nothing")
    if fence := _FENCE.search(text):
        text = fence[1].strip()
    start = text.find("{")
    if start < 0:
        raise UnusableJudgmentError(Failure.PROSE, "there is no JSON object in it")
    try:
        value, _end = _DECODER.raw_decode(text, start)
    except _TwiceError as error:
        raise UnusableJudgmentError(Failure.WRONG_SHAPE, f"{error.args[0][:60]!r} stands there twice") from None
    except _MAX_DEPTH_ERRORS as error:
        if _breaks_off(text[start:]):
            raise UnusableJudgmentError(Failure.HALF_JSON, "the JSON object breaks off") from None
        failure = Failure.PROSE if start else Failure.WRONG_SHAPE
        raise UnusableJudgmentError(failure, f"it is not valid JSON: {error}") from None
    return value


def _breaks_off(text: str) -> bool:
    """Whether the object is still open at the end of the text."""
    depth = 0
    in_string = is_escaped = False
    for letter in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif letter == "\\":
                is_escaped = True
            elif letter == '"':
                in_string = False
        elif letter == '"':
            in_string = True
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
            if depth <= 0:
                return False
    return True


class _TwiceError(Exception):
    """A key stands twice in an object: which of the two verdicts counts, nobody can say."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for index, key in enumerate(keys) if key in keys[:index]))
    return value


# strict=False: judges put line breaks into strings.
_DECODER = json.JSONDecoder(object_pairs_hook=_each_once, strict=False)
