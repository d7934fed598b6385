"""Asking a source for many texts: patient with a server that is away or busy, brief with one that sends nonsense.

Whatever a server does ends in a text, in a stated failure of that one request, or, after it has been away for longer
than a quarter of an hour, in the end of the whole work, which can be taken up again.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from annotation.chat import ChatError, Trouble, model_name, stream_chat
from annotation.models import ResponseSource

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 15 * 60.0
"""How long a server may be away or busy while nothing at all comes from it."""
SILENCE_SECONDS = 600.0
"""Longer than in a conversation: a local server reads all waiting prompts one after the other."""
REQUEST_SECONDS = 1800.0
"""How long one text may take, however steadily it drips."""
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 300.0
TRIES = 3
"""Of a request whose answer broke off or could not be read."""


class EndpointAwayError(Exception):
    """The server stayed away for too long; the sentence says what to do."""


class AskedInVainError(Exception):
    """This request gets no text, and others may."""

    def __init__(self, sentence: str, *, was_refused: bool) -> None:
        super().__init__(sentence)
        self.was_refused = was_refused


class StoppedError(Exception):
    """Somebody wants the work to stop."""


@dataclass(frozen=True)
class Completion:
    text: str
    finish_reason: str
    seconds: float


class Endpoint:
    """A source as many threads ask it. `waiting_for` says why nothing comes just now, and is empty otherwise."""

    def __init__(self, source: ResponseSource, stop: threading.Event) -> None:
        self.source = source
        self.model = model_name(source)  # here, and not in the threads, which have no database connection
        self.stop = stop
        self.waiting_for = ""
        self._heard_at = time.monotonic()

    def ask(self, messages: list[dict[str, str]], *, sampling: dict[str, Any], seed: int) -> Completion:
        """The source's text. Raises AskedInVainError, EndpointAwayError, StoppedError."""
        began = time.monotonic()
        broken = 0
        pause = 0.5
        while True:
            if self.stop.is_set():
                raise StoppedError
            try:
                completion = self._read(messages, sampling, seed)
            except ChatError as error:
                trouble, detail, retry_after = error.trouble, str(error), error.retry_after
            else:
                self._heard_at = time.monotonic()
                self.waiting_for = ""
                return completion
            logger.info("no text: source=%s trouble=%s detail=%s", self.source.pk, trouble, detail)
            if trouble in (Trouble.AWAY, Trouble.BUSY):
                self.waiting_for = f"{self.source.name}: {detail[:300]}"
                if time.monotonic() - max(self._heard_at, began) > PATIENCE_SECONDS:
                    raise EndpointAwayError(
                        f"{self.source.name} has given nothing for {PATIENCE_SECONDS / 60:.0f} minutes "
                        f"({detail[:300]}); what was stored is kept: start its server and go on"
                    )
                self.stop.wait(_pause(pause, retry_after))
            elif trouble == Trouble.REFUSED:
                self._heard_at = time.monotonic()
                raise AskedInVainError(detail[:1000], was_refused=True)
            else:
                broken += 1
                if broken >= TRIES:
                    raise AskedInVainError(f"{trouble.label} {detail[:1000]}", was_refused=False)
                self.stop.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _read(self, messages: list[dict[str, str]], sampling: dict[str, Any], seed: int) -> Completion:
        started = time.monotonic()
        parts: list[str] = []
        reason = ""
        for piece in stream_chat(
            self.source,
            messages,
            seed=seed,
            sampling=sampling,
            silence_seconds=SILENCE_SECONDS,
            model=self.model,
        ):
            parts.append(piece.text)
            reason = piece.finish_reason
            if self.stop.is_set():
                raise StoppedError
            if time.monotonic() - started > REQUEST_SECONDS:
                raise ChatError(Trouble.SILENT, f"no end after {REQUEST_SECONDS:.0f} s")
        return Completion("".join(parts), reason, time.monotonic() - started)


def _pause(pause: float, retry_after: float | None) -> float:
    return pause if retry_after is None else min(max(retry_after, 0.1), LONGEST_RETRY_AFTER_SECONDS)
