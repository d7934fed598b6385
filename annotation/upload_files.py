"""Uploaded files on their way in: streamed to disk under a limit, kept until they are imported or a week old."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, StopFutureHandlers, StopUpload
from django.http import HttpRequest
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import Project

CHUNK_BYTES = 2**16
FORM_BYTES = 100_000  # of a form around its file
KEPT_SECONDS = 7 * 24 * 3600
_TOKEN = re.compile(r"[0-9a-f]{32}")


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class KeptUpload:
    """A file that somebody uploaded to a project. The token is its address; nobody can guess one."""

    token: str
    project_id: int
    name: str
    size: int

    @property
    def folder(self) -> Path:
        return settings.UPLOADS_DIR / self.token

    @property
    def path(self) -> Path:
        return self.folder / "file"

    def note(self) -> None:
        """Put down what it is, which makes it an upload."""
        (self.folder / "about.json").write_text(json.dumps(asdict(self)))

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class StreamToDisk(FileUploadHandler):
    """Writes the one file of a form to disk as it arrives; stops reading at the limit, and `is_too_large` says so."""

    kept: KeptUpload | None = None
    is_too_large = False

    def __init__(self, request: HttpRequest, project: Project) -> None:
        super().__init__(request)
        self.project = project
        self.limit: int = settings.UPLOAD_MAX_BYTES

    def handle_raw_input(
        self,
        input_data: Any,
        META: Any,  # noqa: N803 - Django's name
        content_length: int,
        boundary: Any,
        encoding: str | None = None,
    ) -> None:
        # What says itself that it is too large is not written down first.
        self.is_too_large = content_length > self.limit + FORM_BYTES

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.is_too_large:
            raise StopUpload(connection_reset=False)
        if self.kept is not None:  # one file a form; a second one is passed over
            raise StopUpload(connection_reset=False)
        self.kept = KeptUpload(secrets.token_hex(16), self.project.pk, (self.file_name or "file")[:150], 0)
        self.kept.folder.mkdir(parents=True)
        self.file_ = self.kept.path.open("wb")
        raise StopFutureHandlers

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start + len(raw_data) > self.limit:
            self.is_too_large = True
            self._discard()
            raise StopUpload(connection_reset=False)
        self.file_.write(raw_data)

    def file_complete(self, file_size: int) -> None:
        assert self.kept is not None
        self.file_.close()
        self.kept = KeptUpload(self.kept.token, self.kept.project_id, self.kept.name, file_size)
        self.kept.note()

    def upload_interrupted(self) -> None:
        self._discard()

    def _discard(self) -> None:
        if self.kept is not None:
            self.file_.close()
            self.kept.delete()
            self.kept = None


class UploadTooLargeError(DomainError):
    """Nothing of it was stored."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "The file is larger than %(limit)s MB, so it was not stored. Split it, or import it on the server with"
                " “manage.py import_preferences”, which has no limit."
            )
            % {"limit": f"{settings.UPLOAD_MAX_BYTES / 10**6:g}"}
        )


def keep_stream(project: Project, name: str, stream: Readable, *, size: int) -> KeptUpload:
    """Write a request's body to disk as it arrives. Raises UploadTooLargeError; what came until then is gone.

    size: as the sender says it; 0: it does not. What is too large is read to its end and thrown away, or whoever
    sends it would see a broken connection in place of the sentence.
    """
    token = secrets.token_hex(16)
    kept = KeptUpload(token, project.pk, name[:150], 0)
    written = 0
    if size <= settings.UPLOAD_MAX_BYTES:
        kept.folder.mkdir(parents=True)
        try:
            with kept.path.open("wb") as file:
                while written <= settings.UPLOAD_MAX_BYTES and (chunk := stream.read(CHUNK_BYTES)):
                    written += file.write(chunk)
        except Exception:
            kept.delete()
            raise
    if max(size, written) > settings.UPLOAD_MAX_BYTES:
        kept.delete()
        while stream.read(CHUNK_BYTES):
            pass
        raise UploadTooLargeError
    kept = KeptUpload(token, project.pk, kept.name, written)
    kept.note()
    return kept


def kept_upload(project: Project, token: str) -> KeptUpload | None:
    """The project's upload of that token, if it is still there."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        about = json.loads((settings.UPLOADS_DIR / token / "about.json").read_text())
    except OSError:
        return None
    return KeptUpload(**about) if about["project_id"] == project.pk else None


def delete_old_uploads() -> None:
    """Delete what was uploaded a week ago, or broke off."""
    if not settings.UPLOADS_DIR.exists():
        return
    for folder in settings.UPLOADS_DIR.iterdir():
        if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
