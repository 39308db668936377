"""Every objective by its kind."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from worker.engine.objectives.bce import bce
from worker.engine.objectives.binary_cross_entropy import binary_cross_entropy
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.dist import dist
from worker.engine.objectives.dkd import dkd
from worker.engine.objectives.huber import huber
from worker.engine.objectives.js import js
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse
from worker.engine.objectives.nkd import nkd
from worker.engine.objectives.reverse_kl import reverse_kl
from worker.engine.objectives.squared_error import squared_error
from worker.engine.objectives.ttm import ttm
from worker.engine.objectives.wttm import wttm

# The fields of a term's spec class, but for those that say how it is used (`kind`, `name`, `weight`, ramps), are the
# keyword arguments: here of a pure function of `Views`,
OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {
    "kl": kl,
    "reverse_kl": reverse_kl,
    "js": js,
    "mse": mse,
    "dkd": dkd,
    "dist": dist,
    "nkd": nkd,
    "ttm": ttm,
    "wttm": wttm,
    "bce": bce,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
    "huber": huber,
}
# and here of a module that may learn: it is told `shapes` too, and called with `Views`.
LEARNED: Mapping[str, Callable[..., nn.Module]] = {}
