"""The stores of this installation."""

from dataclasses import dataclass
from pathlib import Path

from app.kit.database import Database
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.database import DatabaseStore
from app.storage.files import FileStore


@dataclass(frozen=True)
class Stores:
    """Where big files go, and where results go that are to be where their row is."""

    files: BlobStore
    database: BlobStore

    def named(self, name: str) -> BlobStore:
        """The store that a row names."""
        return {"files": self.files, "database": self.database}[name]


def open_stores(db: Database, settings: Settings) -> Stores:
    """The stores that the settings name. Raises ValueError for a blob_url of an unknown kind."""
    scheme, _, folder = settings.blob_url.partition(":")
    if scheme != "file" or not folder:
        raise ValueError(f"STILLHOUSE_BLOB_URL must be file:FOLDER, not {settings.blob_url!r}")
    files = FileStore(Path(folder.removeprefix("//")), min_free_bytes=settings.min_free_bytes)
    return Stores(files=files, database=DatabaseStore(db))
