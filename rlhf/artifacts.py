"""Models and training checkpoints where machines share no disk: each is kept in a storage that all of them reach.

A directory with a manifest is stored under the sha256 of that manifest, so what is fetched can be checked against the
hash that the database holds, and nothing ever overwrites anything else. Without such a storage (the default) the data
folder is what the machines share, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from django.conf import settings
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages

from rlhf.jobspec import MANIFEST_FILE, SpecError, fsync_path, sha256_of_file

_BLOCK_BYTES = 1 << 20


class StorageError(OSError):
    """The storage does not answer, or does not hold what it should; the sentence says which."""


def is_shared() -> bool:
    """Whether there is a storage beside the data folder."""
    return bool(settings.SHARED_STORAGE)


def has_directory(manifest_sha256: str) -> bool:
    with _named_errors(manifest_sha256):
        return _storage().exists(f"{manifest_sha256}/{MANIFEST_FILE}")


def store_directory(directory: Path) -> str:
    """Keep a complete directory; gives the sha256 of its manifest. Storing it again does nothing.

    The manifest is written last, so a directory that has one is whole. Raises StorageError, and FileNotFoundError
    where the directory goes away meanwhile.
    """
    content = (directory / MANIFEST_FILE).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if has_directory(sha256):
        return sha256
    for name in _names(content):
        with (directory / name).open("rb") as file, _named_errors(sha256):
            _save(f"{sha256}/{name}", File(file))
    with _named_errors(sha256):
        _save(f"{sha256}/{MANIFEST_FILE}", ContentFile(content))
    return sha256


def fetch_directory(manifest_sha256: str, directory: Path) -> None:
    """Bring a stored directory here, checked file by file; one that is here already is left alone.

    Raises StorageError.
    """
    manifest = directory / MANIFEST_FILE
    if manifest.is_file() and sha256_of_file(manifest) == manifest_sha256:
        return
    draft = directory.with_name(f".{directory.name}.{os.getpid()}.fetched")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        content = _fetch(f"{manifest_sha256}/{MANIFEST_FILE}", draft / MANIFEST_FILE, manifest_sha256)
        for name, sha256 in json.loads(content).items():
            _names(content)
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            _fetch(f"{manifest_sha256}/{name}", draft / name, sha256)
        fsync_path(draft)
        shutil.rmtree(directory, ignore_errors=True)
        draft.replace(directory)
        fsync_path(directory.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_directory(manifest_sha256: str) -> None:
    """Take a stored directory out of the storage; the manifest first, so that no half of it counts."""
    storage, name = _storage(), f"{manifest_sha256}/{MANIFEST_FILE}"
    with _named_errors(manifest_sha256):
        if not storage.exists(name):
            return
        with storage.open(name) as file:
            content = file.read()
        storage.delete(name)
        for part in _names(content):
            storage.delete(f"{manifest_sha256}/{part}")


def store_log(job_id: int, log: Path) -> None:
    """Keep a job's output, so that its page shows it from another machine."""
    if log.exists():
        with log.open("rb") as file, _named_errors(str(log)):
            _save(f"logs/{job_id}.log", File(file))


def read_log(job_id: int) -> bytes:
    """What store_log kept; empty where there is nothing."""
    name = f"logs/{job_id}.log"
    with _named_errors(name):
        if not _storage().exists(name):
            return b""
        with _storage().open(name) as file:
            return bytes(file.read())


def _storage() -> Storage:
    return storages["models"]


def _save(name: str, content: File) -> None:
    storage = _storage()
    if storage.exists(name):  # cut short, or an older log
        storage.delete(name)
    storage.save(name, content)


def _fetch(name: str, path: Path, sha256: str) -> bytes:
    """Copy one file here; gives its content where it is the manifest."""
    digest = hashlib.sha256()
    with _named_errors(name), _storage().open(name) as stored, path.open("wb") as file:
        for block in stored.chunks(_BLOCK_BYTES):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        raise StorageError(f"{name} in the storage is not the file that was stored: its sha256 differs")
    return path.read_bytes() if path.name == MANIFEST_FILE else b""


def _names(manifest: bytes) -> list[str]:
    """The files of a manifest. Raises SpecError for a name that leads out of its directory."""
    names = list(json.loads(manifest))
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SpecError(f"a manifest names {name!r}, which is outside its directory")
    return names


@contextlib.contextmanager
def _named_errors(what: str) -> Iterator[None]:
    """Storage libraries have error families of their own, which nobody else here should have to know."""
    try:
        yield
    except (SpecError, StorageError):
        raise
    except FileNotFoundError as error:
        raise StorageError(f"the storage has no {what}: {error}") from error
    except Exception as error:
        # The system's own errors, such as a full disk, keep their number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StorageError(f"the storage did not do its part for {what}: {error}") from error
