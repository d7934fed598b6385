"""What takes long to make and changes seldom, kept in pytest's cache from one run to the next.

`pytest --cache-clear` forgets it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from config.embedded.process import locked

ROOT = Path(__file__).parents[1]


def kept(
    cache: Path, name: str, make: Callable[[Path], object], *, sources: Iterable[Path], packages: Iterable[str]
) -> Path:
    """The folder that `make` filled, made again when a source or a package's version has changed.

    Test processes side by side make it once.
    """
    digest = hashlib.sha256()
    for package in packages:
        digest.update(f"{package} {version(package)}\n".encode())
    for path in sorted(sources):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    folder = cache / name / digest.hexdigest()[:16]
    with locked(cache / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            draft = folder.with_name("draft")
            draft.mkdir(parents=True)
            make(draft)
            draft.rename(folder)
    return folder
