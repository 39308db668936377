"""Every objective by its kind."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from worker.engine.objectives.bce import bce
from worker.engine.objectives.binary_cross_entropy import binary_cross_entropy
from worker.engine.objectives.cosine import cosine
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse
from worker.engine.objectives.squared_error import squared_error

# The fields of a term's spec class, but for those that say how it is used (`kind`, `name`, `weight`, ramps), are the
# keyword arguments: here of a pure function of `Views`,
OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {
    "kl": kl,
    "mse": mse,
    "bce": bce,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
    "cosine": cosine,
}
# and here of a module that may learn: it is told `shapes` too, and called with `Views`.
LEARNED: Mapping[str, Callable[..., nn.Module]] = {}
