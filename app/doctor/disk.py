"""Whether there is room where API and workers of this machine write."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.doctor.database import sqlite_file
from app.settings import Settings
from stillhouse.contract.findings import Finding, failed, ok, warning
from stillhouse.wording import size

_LOW_SHARE: Final = 0.05


def look(settings: Settings) -> Iterator[Finding]:
    """One finding for each file system that the settings lead to."""
    for uses in _by_disk(settings):
        yield _room(uses, settings.min_free_bytes)


def _by_disk(settings: Settings) -> list[dict[str, Path]]:
    found: dict[int, dict[str, Path]] = {}
    for use, folder in _folders(settings):
        there = _existing(folder)
        found.setdefault(there.stat().st_dev, {})[use] = there
    return list(found.values())


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    if (file := sqlite_file(settings.database_url)) is not None:
        yield "database", file.parent
    if settings.blob_url.startswith("file:"):
        yield "store", Path(settings.blob_url.removeprefix("file:").removeprefix("//"))
    yield "scratch", settings.scratch_folder
    yield "cache", settings.cache_folder


def _existing(folder: Path) -> Path:
    """The folder, or the one in which it would be made."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if os.access(place, os.F_OK))


def _room(uses: dict[str, Path], min_free_bytes: int) -> Finding:
    usage = shutil.disk_usage(next(iter(uses.values())))
    message = f"{size(usage.free)} of {size(usage.total)} are free ({', '.join(uses)})."
    if usage.free < min_free_bytes:
        return failed("disk", message, f"Make room: uploads are refused that leave less than {size(min_free_bytes)}.")
    if usage.free < _LOW_SHARE * usage.total:
        return warning("disk", message, "Make room before uploads, checkpoints and exports find none.")
    return ok("disk", message)
