"""Where a service on this machine leaves its address and key, and which service a caller means."""

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = ".stillhouse"


@dataclass(frozen=True)
class Address:
    """A service and the key to it. `origin` says where the address was found, for messages."""

    url: str
    key: str | None
    origin: str


def home_folder(home: str | Path | None = None) -> Path:
    """The folder of the local service: as given, else STILLHOUSE_HOME, else `.stillhouse` in the working folder."""
    return Path(home or os.environ.get("STILLHOUSE_HOME") or DEFAULT_HOME)


def local_address(home: str | Path | None = None) -> Address | None:
    """The service that runs in the folder, if one does."""
    folder = home_folder(home)
    try:
        url = (folder / "url").read_text().strip()
        key = (folder / "token").read_text().strip()
    except OSError:
        return None
    return Address(url, key, str(folder / "url"))


def find_service(url: str | None = None, key: str | None = None, home: str | Path | None = None) -> Address | None:
    """The service that is meant: as given, else by STILLHOUSE_URL and STILLHOUSE_API_KEY, else the local one."""
    key = key or os.environ.get("STILLHOUSE_API_KEY")
    local = local_address(home)
    named = url or os.environ.get("STILLHOUSE_URL")
    if named is None:
        return Address(local.url, key or local.key, local.origin) if local else None
    # The local key is for the local service only: it is not shown to any other.
    if key is None and local and named.rstrip("/") == local.url:
        key = local.key
    return Address(named, key, "--url" if url else "STILLHOUSE_URL")
