"""How the local service of a folder stands, in plain words."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from stillhouse import wording
from stillhouse.contract.findings import Finding, failed, ok, skipped
from stillhouse.home import home_folder
from stillhouse.local import preconditions


def examine(home: str | Path | None = None) -> Iterator[Finding]:
    """Look at the folder of the local service, and whether one runs there."""
    folder, check = home_folder(home), "local service"
    if not (folder / "lock").exists():
        yield skipped(check, f"None was ever started in {folder}.")
        return
    holder = preconditions.holder(folder)
    if holder is not None:
        yield ok(check, f"It runs in {folder} (process {holder}); its logs are in {folder / 'logs'}.")
    elif (folder / "url").exists():
        yield failed(
            check, f"The one in {folder} was ended by force.", "Start it again: `stillhouse up`. No job is lost.",
        )
    else:
        yield failed(check, f"The one in {folder} does not run.", "Start it: `stillhouse up`.")
    yield _room(folder)


def _room(folder: Path) -> Finding:
    check, free = "local disk", shutil.disk_usage(folder).free
    message = f"{wording.size(free)} are free in {folder}."
    if free < preconditions.MIN_FREE_BYTES:
        needed = wording.size(preconditions.MIN_FREE_BYTES)
        return failed(check, message, f"Make room: the service needs at least {needed} to start.")
    return ok(check, message)
