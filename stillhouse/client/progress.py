"""How a transfer tells how far it is."""

from collections.abc import Callable

# Bytes so far, and bytes in all where that is known.
ProgressCallback = Callable[[int, int | None], None]
