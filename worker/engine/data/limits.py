"""How much a file may become when it is decoded."""

from math import prod

from stillhouse.contract.failures import UnusableArrayError
from worker.engine.memory import check_memory

MAX_DECODED_BYTES = 32 * 1024**3


def check_decoded_size(what: str, shape: tuple[int, ...], item_bytes: int, limit: int = MAX_DECODED_BYTES) -> None:
    """Raise UnusableArrayError or OutOfMemoryError when an array of this shape is larger than can be decoded."""
    size = prod(shape) * item_bytes
    if size > limit:
        raise UnusableArrayError(f"{what} declares {size:,} bytes of data; at most {limit:,} can be decoded")
    check_memory(size, what)
