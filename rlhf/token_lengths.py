"""How many tokens a conversation has for a model: its chat template rendered, then tokenized.

The web side counts with this before a job starts and the training process leaves rows out with it, so both always
agree. It needs only `tokenizers` and `jinja2`; importing transformers costs 250 MB and more than a second.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from rlhf.options import SpecError

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class UncountableRowError(SpecError):
    """Messages that the model's chat template refuses."""


@dataclass(frozen=True)
class Token:
    text: str
    """Empty where a character is made of several tokens and stands with the first."""
    is_special: bool


@dataclass(frozen=True)
class Trained:
    """A conversation as a method with a loss on completions sees it."""

    tokens: list[Token]
    start: int
    """The loss is taken on tokens[start:]."""
    prompt_is_prefix: bool
    """Whether the template renders the prompt the same alone and with its answer."""


class TokenCounter:
    """Counts tokens as training does: the template over all messages, without a generation prompt."""

    def __init__(self, directory: Path) -> None:
        """Read a model directory's tokenizer and chat template. Raises SpecError."""
        directory = Path(directory)
        try:
            self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises plain Exception, for a missing file too
            raise SpecError(f"{directory / 'tokenizer.json'} cannot be read: {error}") from None
        # Settings left in the file by whoever tokenized with it last would cut or pad what is counted.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = _read_config(directory / "tokenizer_config.json")
        template = _chat_template(directory, config)
        self.template_sha256 = hashlib.sha256(template.encode()).hexdigest()
        try:
            self._template = _environment().from_string(template)
        except jinja2.TemplateSyntaxError as error:
            raise SpecError(f"{directory}: the chat template cannot be parsed: {error}") from None
        self._special_tokens = {
            name: token["content"] if isinstance(token, dict) else token
            for name in _SPECIAL_TOKENS
            if (token := config.get(name))
        }

    @property
    def end_of_text(self) -> str | None:
        """The token that ends a text, as the tokenizer's own settings name it."""
        return self._special_tokens.get("eos_token")

    @property
    def padding(self) -> str | None:
        return self._special_tokens.get("pad_token")

    def render(self, messages: list[dict[str, str]], *, for_completion: bool = False) -> str:
        """The text that the model sees; with what opens its turn where it is `for_completion`.

        Raises UncountableRowError.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=for_completion,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise UncountableRowError(f"the model's chat template refuses these messages: {error}") from None

    def count(self, messages: list[dict[str, str]], *, for_completion: bool = False) -> int:
        """Tokens of a conversation, special ones included. Raises UncountableRowError."""
        return len(self._encode(self.render(messages, for_completion=for_completion)).ids)

    def _encode(self, text: str) -> Encoding:
        # The template writes the special tokens itself; the tokenizer must not add them again.
        return self._tokenizer.encode(text, add_special_tokens=False)

    def learnt_from(self, prompt: list[dict[str, str]], completion: list[dict[str, str]]) -> Trained:
        """One conversation token by token, and where the completion begins that the loss is taken on.

        TRL 1.16 cuts where the prompt alone (with a generation prompt) and the whole part ways, which is earlier than
        the end of the prompt where the template renders the two unlike. Raises UncountableRowError.
        """
        alone = self._encode(self.render(prompt, for_completion=True)).ids
        text = self.render(prompt + completion)
        whole = self._encode(text)
        start = next(
            (place for place, (one, other) in enumerate(zip(alone, whole.ids, strict=False)) if one != other),
            min(len(alone), len(whole.ids)),
        )
        return Trained(tokens=self._tokens(text, whole), start=start, prompt_is_prefix=start == len(alone))

    def prompt_tokens(self, prompt: list[dict[str, str]]) -> list[Token]:
        """A prompt token by token, up to where the model begins to answer. Raises UncountableRowError."""
        text = self.render(prompt, for_completion=True)
        return self._tokens(text, self._encode(text))

    def _tokens(self, text: str, encoding: Encoding) -> list[Token]:
        tokens, shown = [], 0
        for number, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            tokens.append(Token(text[shown:end], number in self._special_ids))
            shown = max(shown, end)
        return tokens

    @functools.cached_property
    def _special_ids(self) -> set[int]:
        return {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    def count_row(self, row: dict[str, Any]) -> int:
        """Tokens of the longest conversation in a training row: with `chosen`, `rejected` or `completion`."""
        return max(
            self.count(row["prompt"] + row[side]) for side in ("chosen", "rejected", "completion") if side in row
        )


def check_same_template(base: Path, reward_model: Path) -> None:
    """Raise SpecError where a reward model would read conversations in another form than the policy writes them."""
    base, reward_model = Path(base), Path(reward_model)
    policy_hash, reward_hash = (chat_template_sha256(directory) for directory in (base, reward_model))
    if policy_hash != reward_hash:
        raise SpecError(
            f"reward_model: {reward_model} has another chat template ({reward_hash[:8]}) than the model to train "
            f"({policy_hash[:8]}), so its scores would mean nothing: train a reward model from {base.name} "
            "or from a model with the same template"
        )


def chat_template_sha256(directory: Path) -> str:
    """Of a model's chat template. Raises SpecError where it has none."""
    template = _chat_template(directory, _read_config(directory / "tokenizer_config.json"))
    return hashlib.sha256(template.encode()).hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise SpecError(f"{path} is not valid JSON") from None


def _chat_template(directory: Path, config: dict[str, Any]) -> str:
    """chat_template.jinja, which wins over the older place in tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not template:
        raise SpecError(f"{directory} has no chat template: add a chat_template.jinja, as chat models have")
    return template


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for the trainer; it renders as what it holds."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    """What transformers gives a chat template (utils/chat_template_utils.py, 5.23), sandboxed: it is foreign code."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment
