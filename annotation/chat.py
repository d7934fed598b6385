"""A streaming client of anything that speaks OpenAI's chat completions.

What comes back is hostile until proven otherwise: lines that are no JSON, streams that stop in the middle, pieces that
split a character, texts without end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from django.conf import settings
from django.db import models
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from annotation.models import ResponseSource

# A little below the usual 1.0: it reads better to people, and small models stay on the subject.
SAMPLING = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 512}
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0
"""How long nothing may come; a server that loads a large model first is silent for a while."""
MAX_CHARS = 200_000
MAX_LINE_BYTES = 2**20


class Trouble(models.TextChoices):
    """Why no complete response came, as a sentence for the annotator: it names no model and no address."""

    AWAY = "away", _("The model cannot be reached.")
    BUSY = "busy", _("The model is busy.")
    REFUSED = "refused", _("The model refused this conversation.")
    SILENT = "silent", _("The model fell silent.")
    BROKEN = "broken", _("The response broke off.")
    UNREADABLE = "unreadable", _("The model sent something that cannot be read.")


class ChatError(Exception):
    """No complete response came; `str(error)` is for the log only."""

    def __init__(self, trouble: Trouble, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.trouble = trouble
        self.retry_after = retry_after
        """Seconds after which a busy server wants to be asked again, where it says so."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What has arrived; the last piece has a finish reason."""

    text: str
    finish_reason: str = ""


def model_name(source: ResponseSource) -> str:
    """What to send as `model`. Checkpoints are known to the training side only, which settings name by dotted path."""
    return import_string(settings.SERVED_MODEL)(source)


def stream_chat(
    source: ResponseSource,
    messages: list[dict[str, str]],
    *,
    seed: int,
    sampling: dict[str, Any] = SAMPLING,
    silence_seconds: float | None = None,
    model: str = "",
) -> Iterator[Piece]:
    """The source's response to the messages, piece by piece. Raises ChatError.

    model: what `model_name` gives, where it has been asked before: it reads the database.
    """
    base_url = (source.base_url or settings.MODEL_SERVER_URL).rstrip("/")
    body = {"model": model or model_name(source), "messages": messages, "stream": True, "seed": seed, **sampling}
    timeout = httpx.Timeout(silence_seconds or SILENCE_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            client.stream("POST", f"{base_url}/chat/completions", json=body) as answer,
        ):
            if answer.status_code != 200:
                raise _refusal(answer)
            yield from _bounded(_pieces(answer))
    except httpx.ConnectTimeout as error:
        raise ChatError(Trouble.AWAY, f"{base_url}: {error!r}") from error
    except httpx.TimeoutException as error:
        raise ChatError(Trouble.SILENT, f"{base_url}: {error!r}") from error
    except httpx.ConnectError as error:
        raise ChatError(Trouble.AWAY, f"{base_url}: {error!r}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ChatError(Trouble.BROKEN, f"{base_url}: {error!r}") from error


def _refusal(answer: httpx.Response) -> ChatError:
    start = b""
    for chunk in answer.iter_bytes():
        start += chunk
        if len(start) > 300:
            break
    detail = f"{answer.url} answered {answer.status_code}: {start[:300].decode(errors='replace')}"
    if answer.status_code in (429, 502, 503, 504):
        return ChatError(Trouble.BUSY, detail, _seconds(answer.headers.get("Retry-After", "")))
    return ChatError(Trouble.REFUSED if answer.status_code < 500 else Trouble.BROKEN, detail)


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After header asks for: a number of seconds or a date (RFC 9110 §10.2.3)."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return seconds if 0 <= seconds < math.inf else None


def _pieces(answer: httpx.Response) -> Iterator[Piece]:
    """Every piece, the finish reason last. Raises ChatError where the stream ends without one."""
    if "json" in answer.headers.get("Content-Type", ""):  # a server that does not stream
        value = _parsed(b"".join(_at_most(answer.iter_bytes(), 8 * MAX_CHARS)))
        choice = _choice(value, "message")
        if choice is None:
            raise ChatError(Trouble.UNREADABLE, f"no choice in {str(value)[:300]}")
        yield Piece(whole_characters(choice[0]))
        yield Piece("", choice[1] or "stop")
        return
    held = ""  # the first half of a character whose second half comes with the next piece
    reason = ""
    for line in _lines(_at_most(answer.iter_bytes(), 64 * MAX_CHARS)):
        field, _colon, data = line.partition(b":")
        if field != b"data":  # a comment that keeps the connection open, or a field that nobody needs
            continue
        data = data.strip()
        if data == b"[DONE]":
            # Some servers give no reason; that they say they are done is one.
            yield Piece(whole_characters(held), reason or "stop")
            return
        choice = _choice(_parsed(data), "delta")
        if choice is None:
            continue
        text = held + choice[0]
        held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        if text := text.removesuffix(held):
            yield Piece(whole_characters(text))
        reason = choice[1] or reason
    if not reason:
        raise ChatError(Trouble.BROKEN, f"{answer.url}: the stream ended without a finish reason")
    yield Piece(whole_characters(held), reason)


def _at_most(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The chunks, as far as they hold at most so many bytes. Raises ChatError beyond."""
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > count:
            raise ChatError(Trouble.UNREADABLE, f"more than {count} bytes")
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split at line feeds only: JSON may hold the other characters that Python takes for the end of a line."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            raise ChatError(Trouble.UNREADABLE, f"a line of more than {MAX_LINE_BYTES} bytes")
    yield rest


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChatError(Trouble.UNREADABLE, f"{error}: {data[:200]!r}") from None


def _choice(value: Any, key: str) -> tuple[str, str] | None:
    """(text, finish reason) of the first choice; None where the event is about something else, such as usage."""
    if not isinstance(value, dict):
        raise ChatError(Trouble.UNREADABLE, f"not an object: {str(value)[:200]}")
    if value.get("error"):
        raise ChatError(Trouble.BROKEN, f"the server says: {str(value['error'])[:300]}")
    choices = value.get("choices")
    if not choices:
        return None
    try:
        content = choices[0].get(key, {}).get("content")
        reason = choices[0].get("finish_reason")
    except (AttributeError, KeyError, TypeError, IndexError):
        raise ChatError(Trouble.UNREADABLE, f"no choice in {str(value)[:200]}") from None
    if not isinstance(content, str | None) or not isinstance(reason, str | None):
        raise ChatError(Trouble.UNREADABLE, f"not a text in {str(value)[:200]}")
    return content or "", (reason or "")[:20]


def whole_characters(text: str) -> str:
    """Join halves of characters, and put U+FFFD for what no text and no database can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def _bounded(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """End a response that would never end."""
    count = 0
    for piece in pieces:
        count += len(piece.text)
        if count > MAX_CHARS:
            yield Piece(piece.text[: MAX_CHARS - count], "length")
            return
        yield piece
