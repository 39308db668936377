"""What one worker has, shared by its threads."""

import os
import secrets
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from app.doorbell import Announcer, announce
from app.kit.database import Database
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.stores import Stores, open_stores
from app.storage.watched import watched
from worker.numbers import Numbers
from worker.slots import Slots
from worker.staging import Cache

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Workshop:
    """A worker's name, rooms and tools."""

    name: str
    settings: Settings
    db: Database
    stores: Stores
    announcer: Announcer
    cache: Cache
    devices: Slots
    # Preflight alone never waits behind training.
    plans: Slots = field(default_factory=lambda: Slots(1))
    numbers: Numbers = field(default_factory=Numbers)
    # Set from a signal handler; everything else happens elsewhere.
    draining: threading.Event = field(default_factory=threading.Event)
    # Rings that came while draining, as pairs of queue and job: for another worker to hear.
    unheard: list[tuple[str, str]] = field(default_factory=list)

    @property
    def num_threads(self) -> int:
        """Threads of one trainer."""
        return max(1, num_cores() // self.settings.slots)

    @property
    def num_plan_threads(self) -> int:
        """Threads of a plan: it runs beside full slots, and must not take much from them."""
        return max(1, self.num_threads // 2)


def open_workshop(settings: Settings, files: BlobStore) -> Workshop:
    """Connect to everything that the settings name; `files` is the store for big files, opened already."""
    db = Database(settings.database_url)
    settings.scratch_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    numbers = Numbers()
    shop = Workshop(
        # Another one after each start, so that nobody takes an older worker's lease for this one's.
        name=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        settings=settings,
        db=db,
        stores=watched(open_stores(db, settings, files), numbers.stores),
        announcer=announce(settings.broker_url),
        cache=Cache(settings.cache_folder, settings.cache_bytes),
        devices=Slots(settings.slots),
        numbers=numbers,
    )
    numbers.watch_slots("job", shop.devices)
    numbers.watch_slots("plan", shop.plans)
    return shop


def num_cores() -> int:
    """Cores that this process may use: those it is bound to, or what its container was given, if that is less."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(bound, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or no limit
        return bound
