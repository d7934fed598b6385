"""Threads that read a model's response to its end, whoever is watching, and what a browser gets of it meanwhile.

A side is written by whoever holds the advisory lock on it: a thread with a database connection of its own, so that the
lock goes when the process dies, and the next one who looks, in any process, asks the model again with the same seed.
Who watches in the writer's process sees each piece at once; in another one, what is saved twice a second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import Error, connection

from annotation.chat import SAMPLING, ChatError, stream_chat
from annotation.models import SideStatus, SourceKind, Turn, TurnSide
from annotation.services import turns as services

logger = logging.getLogger(__name__)

SAVE_SECONDS = 0.5
LOOK_SECONDS = 0.25
"""How often a watcher reads what another process has saved, and sees whether it is still being written."""
PROBE_SECONDS = 2.0
PING_SECONDS = 5.0
"""How often a silent stream says something, to learn whether anybody still listens."""
_LOCK_SPACE = 0x7A1C


class BusyError(Exception):
    """As many responses are being written or watched in this process as are allowed."""


class _Room:
    """What goes on in this process. `news` guards all of it and is notified with every piece."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.version = 0
        self.writers: dict[int, Writer] = {}
        self.watchers = 0

    def tell(self) -> None:
        """Call with `news` held."""
        self.version += 1
        self.news.notify_all()


_room = _Room()


class Writer(threading.Thread):
    """Reads one response to its end and stores it."""

    def __init__(self, side_id: int) -> None:
        super().__init__(daemon=True, name=f"writer-{side_id}")
        self.side_id = side_id
        self.text: str | None = None
        """None until the lock is ours."""

    def run(self) -> None:
        try:
            if not self._lock():
                return
            side = TurnSide.objects.select_related("turn__prompt", "source").get(pk=self.side_id)
            if side.status == SideStatus.OPEN:
                self._write(side)
        except Error:
            # Without its connection the lock is gone, too: the next who looks writes.
            logger.exception("side %s: the database is away", self.side_id)
        finally:
            connection.close()
            with _room.news:
                del _room.writers[self.side_id]
                _room.tell()

    def _lock(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK_SPACE, self.side_id % 2**31])
            return cursor.fetchone()[0]

    def _write(self, side: TurnSide) -> None:
        text, saved_at = "", time.monotonic()
        try:
            for piece in stream_chat(side.source, side.turn.prompt.messages, seed=side.seed):
                text += piece.text
                with _room.news:
                    self.text = text
                    _room.tell()
                if piece.finish_reason:
                    services.finish_side(side.pk, text, piece.finish_reason, sampling=SAMPLING)
                    return
                if time.monotonic() - saved_at > SAVE_SECONDS:
                    services.save_progress(side.pk, text)
                    saved_at = time.monotonic()
        except ChatError as error:
            logger.warning("side %s of turn %s: %s", side.position, side.turn_id, error)
            services.break_side(side.pk, text, f"{error.trouble}: {error}")


def start_writing(turn: Turn) -> None:
    """Have every open side of the turn written. Raises BusyError where too much is being written already."""
    # What a program brings itself has no model to be asked.
    to_write = turn.sides.filter(status=SideStatus.OPEN, source__kind=SourceKind.MODEL)
    open_ids = list(to_write.values_list("pk", flat=True))
    with _room.news:
        new = [Writer(pk) for pk in open_ids if pk not in _room.writers]
        if len(_room.writers) + len(new) > 2 * settings.OPEN_STREAMS:
            raise BusyError
        _room.writers.update((writer.side_id, writer) for writer in new)
    for writer in new:
        writer.start()


def wait_for_writers(seconds: float) -> bool:
    """Wait until nothing is being written in this process; whether that came true in time."""
    with _room.news:
        return _room.news.wait_for(lambda: not _room.writers, seconds)


@dataclass(frozen=True, slots=True)
class SideView:
    """How far a side is; `text` is what has arrived of an open or broken one."""

    position: int
    status: str
    text: str


class Watch:
    """One browser's view of a turn being written. It takes one of the process's places until it is closed.

    Raises BusyError where there is none.
    """

    def __init__(self, turn: Turn) -> None:
        with _room.news:
            if _room.watchers >= settings.OPEN_STREAMS:
                raise BusyError
            _room.watchers += 1
        self._has_place = True
        self.turn = turn
        try:
            start_writing(turn)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with _room.news:
            if self._has_place:
                self._has_place = False
                _room.watchers -= 1

    def __iter__(self) -> Iterator[list[SideView]]:
        """The sides that changed, each time some did, until all have ended; an empty list where all is silent."""
        seen: dict[int, SideView] = {}
        positions = dict(self.turn.sides.values_list("pk", "position"))  # of the sides that have not ended
        here: set[int] = set()
        version, looked_at, probed_at, said_at = -1, 0.0, time.monotonic(), time.monotonic()
        while positions:
            with _room.news:
                _room.news.wait_for(lambda: _room.version != version, LOOK_SECONDS)  # noqa: B023
                version = _room.version
                texts = {pk: _room.writers[pk].text for pk in positions if pk in _room.writers}
            now = time.monotonic()
            views = {pk: SideView(positions[pk], SideStatus.OPEN, text) for pk, text in texts.items() if text}
            elsewhere = positions.keys() - views.keys()
            has_ended_here = bool(here - texts.keys())
            if elsewhere and (has_ended_here or now - looked_at > LOOK_SECONDS):
                looked_at = now
                for side in self.turn.sides.filter(pk__in=elsewhere):
                    views[side.pk] = SideView(side.position, side.status, side.text)
            if elsewhere and now - probed_at > PROBE_SECONDS:
                probed_at = now
                with contextlib.suppress(BusyError):
                    start_writing(self.turn)  # the process that wrote may have died
            news = [view for pk, view in views.items() if seen.get(pk) != view]
            if news or now - said_at > PING_SECONDS:
                said_at = now
                yield news
            seen.update(views)
            here = set(texts)
            positions = {
                pk: position
                for pk, position in positions.items()
                if pk not in views or views[pk].status == SideStatus.OPEN
            }
