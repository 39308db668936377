"""Every objective by its kind."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse

# The fields of a term's spec class, but for those that say how it is used (`kind`, `name`, `weight`, ramps), are the
# keyword arguments: here of a pure function of `Views`,
OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {"kl": kl, "cross_entropy": cross_entropy, "mse": mse}
# and here of a module that may learn: it is told `shapes` too, and called with `Views`.
LEARNED: Mapping[str, Callable[..., nn.Module]] = {}
