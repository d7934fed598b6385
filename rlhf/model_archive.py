"""A checkpoint as one tar file in the layout that `from_pretrained` reads, written while it is sent.

Nothing is held in memory but a block, and the length is known before the first byte: a download that is cut short is
seen to be. Every file is hashed on its way; one that is not what the manifest says ends the download early.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf.jobspec import MANIFEST_FILE
from rlhf.options import SpecError

_BLOCK = 1 << 20
_RECORD = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class _Member:
    header: bytes
    size: int
    path: Path | None
    content: bytes = b""
    sha256: str = ""


class ModelArchive:
    """`name/…`: the files of a manifest, the manifest, and the card."""

    def __init__(self, name: str, directory: Path, card: str, made_at: float) -> None:
        """Read the manifest and the sizes. Raises SpecError where a file is missing or there is no manifest."""
        try:
            files: dict[str, str] = json.loads((directory / MANIFEST_FILE).read_text())
        except (OSError, ValueError):
            raise SpecError(f"{directory} has no readable {MANIFEST_FILE}: it was not written to the end") from None
        # A base may come with a README of its own, and with it its licence: that one stays.
        card_name = "MODEL_CARD.md" if "README.md" in files else "README.md"
        self._members = [self._member(f"{name}/{card_name}", None, made_at, content=card.encode())]
        for file, sha256 in sorted(files.items()):
            path = directory / file
            if not path.is_file():
                raise SpecError(f"{directory}: {file} is missing")
            self._members.append(self._member(f"{name}/{file}", path, made_at, sha256=sha256))
        self._members.append(self._member(f"{name}/{MANIFEST_FILE}", directory / MANIFEST_FILE, made_at))

    def _member(
        self, name: str, path: Path | None, made_at: float, *, content: bytes = b"", sha256: str = ""
    ) -> _Member:
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size if path else len(content)
        info.mtime, info.mode = made_at, 0o644
        return _Member(info.tobuf(tarfile.PAX_FORMAT), info.size, path, content, sha256)

    @property
    def size(self) -> int:
        """Of the whole file, in bytes."""
        return sum(len(one.header) + one.size + -one.size % _RECORD for one in self._members) + 2 * _RECORD

    def __iter__(self) -> Iterator[bytes]:
        for one in self._members:
            yield one.header
            if one.path is None:
                yield one.content
            else:
                yield from _checked_blocks(one.path, one.size, one.sha256)
            yield bytes(-one.size % _RECORD)
        yield bytes(2 * _RECORD)


def _checked_blocks(path: Path, size: int, sha256: str) -> Iterator[bytes]:
    """A file's blocks; the last is held back until the whole file is known to be the manifest's."""
    digest, left, held = hashlib.sha256(), size, b""
    with path.open("rb") as file:
        while left and (block := file.read(min(_BLOCK, left))):
            yield held
            digest.update(block)
            held, left = block, left - len(block)
    if left or (sha256 and digest.hexdigest() != sha256):
        raise SpecError(f"{path} is not the file that its manifest describes; the download was stopped")
    yield held
