"""The Python client of the service: `Client(url, key).submit(spec).watch()`.

Loads neither torch nor numpy. Readers are lenient: statuses, events and fields of a newer service come through
as they are.
"""

from stillhouse.client.api import Client
from stillhouse.client.errors import (
    ServiceUnreachableError,
    StillhouseApiError,
    StillhouseClientError,
    TransferError,
    UnexpectedAnswerError,
)
from stillhouse.client.handle import JobHandle
from stillhouse.client.progress import ProgressCallback

__all__ = [
    "Client", "JobHandle", "ProgressCallback", "ServiceUnreachableError", "StillhouseApiError",
    "StillhouseClientError", "TransferError", "UnexpectedAnswerError",
]
