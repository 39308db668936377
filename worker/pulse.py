"""A worker's pulse: a file that each of its rounds touches, for the health check of a container."""

import time

from app.settings import Settings

_MISSED_ROUNDS = 3


def beat(settings: Settings) -> None:
    """A round was made: the database answered."""
    (settings.scratch_folder / "pulse").touch()


def problem(settings: Settings) -> str | None:
    """What is wrong with the worker of these settings; None when it is well."""
    try:
        beaten_at = (settings.scratch_folder / "pulse").stat().st_mtime
    except FileNotFoundError:
        return f"no worker has made a round in {settings.scratch_folder} yet"
    silent = time.time() - beaten_at
    # After an outage of the database the next round waits for a lease.
    longest = settings.lease_seconds + _MISSED_ROUNDS * settings.reap_seconds
    return f"the last round was {silent:.0f} s ago" if silent > longest else None
