"""The whole service on this machine: SQLite, an embedded Valkey, the API and a worker, as child processes."""

from stillhouse.local.errors import ComponentDiedError, LocalServiceError
from stillhouse.local.service import LocalService, running

__all__ = ["ComponentDiedError", "LocalService", "LocalServiceError", "running"]
