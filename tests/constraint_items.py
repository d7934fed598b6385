"""Small CFBench instructions and SysBench sessions of our own, in the authors' shapes."""

from __future__ import annotations

from typing import Any

PRIORITIES = {"P": "主需", "S": "次需"}


def instruction(idx: int, prompt: str = "", kinds: str = "PS", **more: Any) -> dict[str, Any]:
    """kinds: P or S for each constraint."""
    return {
        "idx": idx,
        "prompt": prompt or f"Write {idx} lines about the sea",
        "isanswer": "否",
        "gold": "",
        "doamin": "教育",
        "scenario": "其他",
        "source": "own",
        "split": "easy",
        "criteria": [
            [f"constraint {number}", PRIORITIES[kind], "格式约束" if number % 2 else "内容约束", "x"]
            for number, kind in enumerate(kinds, 1)
        ],
        **more,
    }


def session(system_id: int, turns: int = 3, *, related: bool = True, **more: Any) -> dict[str, Any]:
    """A session whose turns have two criteria each."""
    prompts = [f"question {turn} of session {system_id}" for turn in range(1, turns + 1)]
    messages = [{"role": "system", "content": f"You are pilot {system_id}."}]
    for prompt in prompts:
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"ideal: {prompt}"}]
    return {
        "system_id": system_id,
        "system_prompt": f"You are pilot {system_id}.",
        "领域": "航空",
        "场景": "驾驶",
        "rounds_related": related,
        "messages": messages,
        "prompt_infos": {
            prompt: {
                "alignment": "misalign" if number == 1 else "align",
                "criteria": {
                    "1": {"criteria_id": 1, "criteria_content": "speaks as a pilot", "criteria_type": "角色约束"},
                    "2": {"criteria_id": 2, "criteria_content": "is one sentence", "criteria_type": "格式约束"},
                },
            }
            for number, prompt in enumerate(prompts)
        },
        **more,
    }
