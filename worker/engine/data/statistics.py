"""The normalisation and the range of values, measured on the training split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.contract.spec import Normalization

_TYPE_LIMITS = {"uint8": (0.0, 255.0), "bool": (0.0, 1.0)}
CHUNK = 256  # small enough for the cache of a CPU: float64 is eight times as large as a byte


def measure_normalization(
    arranged: Tensor, ids: Tensor, *, is_number: Sequence[bool] | None = None
) -> Normalization:
    """Mean and standard deviation of the samples `ids` of (N, *input_shape), per channel or column.

    Bytes are scaled to 0 to 1 first. What never varies is only centred. Columns for which `is_number` is False are
    left as they are: the 0 and 1 of categories.
    """
    scale = 1 / 255 if arranged.dtype == torch.uint8 else 1.0
    mean = _mean(arranged, ids, torch.zeros(arranged.shape[1], dtype=torch.float64), power=1)
    variance = _mean(arranged, ids, mean, power=2)
    std = variance.sqrt()
    std = torch.where(std > mean.abs() * 1e-7, std, torch.full_like(std, 1 / scale))
    if is_number is not None:
        measured = torch.tensor(is_number)
        mean, std = torch.where(measured, mean, 0.0), torch.where(measured, std, 1.0)
    return Normalization(scale=scale, mean=(mean * scale).tolist(), std=(std * scale).tolist())


def measure_limits(arranged: Tensor, ids: Tensor, dtype: str) -> tuple[float, float]:
    """Darkest and brightest raw value of the samples `ids` of (N, *input_shape).

    `dtype` is that of the raw samples, by NumPy's name: bytes and booleans have the limits of their type.
    """
    if dtype in _TYPE_LIMITS:
        return _TYPE_LIMITS[dtype]
    extremes = [torch.stack(arranged.index_select(0, chunk).aminmax()) for chunk in ids.split(CHUNK)]
    low, high = torch.stack(extremes).aminmax()
    return float(low), float(high)


def _mean(arranged: Tensor, ids: Tensor, centre: Tensor, *, power: int) -> Tensor:
    """Mean over samples and pixels of (x - centre) ** power, per channel; in float64, a chunk at a time."""
    total = torch.zeros_like(centre)
    for chunk in ids.split(CHUNK):
        values = arranged.index_select(0, chunk).view(len(chunk), len(centre), -1).double()
        total += values.sub_(centre[:, None]).pow_(power).sum(dim=(0, 2))
    return total / (len(ids) * arranged[0, 0].numel())
