"""Samples by their ids, from memory or from disk; what a step will need can be asked for before."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Arranged raw samples. The same ids give the same bits, wherever they lie."""

    def rows(self, ids: Tensor) -> Tensor:
        """Samples (B, *input_shape) of ids (B,), a new tensor on the device, of the raw type."""

    def expect(self, ids: Tensor) -> None:
        """Ids that `rows` will be asked for, in this order, after those that were expected before."""


class MemorySource:
    """Samples that lie in memory, on the device: a batch costs an index."""

    def __init__(self, arranged: Tensor) -> None:
        self.arranged = arranged

    def rows(self, ids: Tensor) -> Tensor:
        """Samples (B, *input_shape) of ids (B,)."""
        return self.arranged.index_select(0, ids)

    def expect(self, ids: Tensor) -> None:
        """Nothing: they are here already."""


class MappedSource:
    """Samples that lie in a file that is mapped into memory.

    What is expected is gathered by a thread of its own: both waiting for the disk and copying let go of the
    interpreter, so that no process is needed beside it.
    """

    def __init__(self, arranged: Tensor, device: str) -> None:
        self._arranged = arranged
        self._device = torch.device(device)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="samples")
        self._expected: deque[tuple[Tensor, Future[Tensor]]] = deque()

    def rows(self, ids: Tensor) -> Tensor:
        """Samples (B, *input_shape) of ids (B,), gathered before where they were expected."""
        while self._expected:
            expected, gathered = self._expected.popleft()
            if expected is ids or torch.equal(expected, ids):
                return self._on_device(gathered.result())
            gathered.cancel()
        return self._on_device(self._gather(ids))

    def expect(self, ids: Tensor) -> None:
        """Gather these samples now, in the background."""
        self._expected.append((ids, self._pool.submit(self._gather, ids)))

    def close(self) -> None:
        """Gather nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _gather(self, ids: Tensor) -> Tensor:
        rows = self._arranged.index_select(0, ids.cpu())
        # Pinned memory goes to the device while the step before computes. Never run where these tests are: no CUDA.
        return rows.pin_memory() if self._device.type == "cuda" else rows

    def _on_device(self, rows: Tensor) -> Tensor:
        return rows.to(self._device, non_blocking=True)
