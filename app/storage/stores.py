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


    def close(self) -> None:
        """Let connections go."""
        self.files.close()
        self.database.close()


def open_stores(db: Database, settings: Settings, files: BlobStore | None = None) -> Stores:
    """The stores that the settings name; `files` is the one for big files, where it is open already.

    Raises ValueError for a blob_url that is none, or without credentials.
    """
    return Stores(files=files or open_files(settings), database=DatabaseStore(db))


def open_files(settings: Settings) -> BlobStore:
    """The store for big files. Raises ValueError for a blob_url that is none, or without credentials."""
    scheme, _, folder = settings.blob_url.partition(":")
    if scheme == "s3":
        # Slow to load, and needed by nobody else.
        from app.storage.s3 import open_s3  # noqa: PLC0415

        return open_s3(settings)
    if scheme != "file" or not folder:
        raise ValueError(f"STILLHOUSE_BLOB_URL must be file:FOLDER or s3://BUCKET/PREFIX, not {settings.blob_url!r}")
    return FileStore(Path(folder.removeprefix("//")), min_free_bytes=settings.min_free_bytes)
