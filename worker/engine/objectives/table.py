"""Every objective by its kind."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from worker.engine.objectives.at import At
from worker.engine.objectives.cka import cka
from worker.engine.objectives.cosine import Cosine
from worker.engine.objectives.crd import Crd
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.fitnet import Fitnet
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse
from worker.engine.objectives.nst import Nst
from worker.engine.objectives.pkt import pkt
from worker.engine.objectives.review import Review
from worker.engine.objectives.rkd import rkd
from worker.engine.objectives.sp import sp
from worker.engine.objectives.vid import Vid

# The fields of a term's spec class, but for those that say how it is used (`kind`, `name`, `weight`, ramps), are the
# keyword arguments: here of a pure function of `Views`,
OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {
    "kl": kl,
    "cross_entropy": cross_entropy,
    "mse": mse,
    "rkd": rkd,
    "sp": sp,
    "pkt": pkt,
    "cka": cka,
}
# and here of a module that learns, or must see first whether the layers fit: it is told `shapes` too, and called with
# `Views`.
LEARNED: Mapping[str, Callable[..., nn.Module]] = {
    "fitnet": Fitnet,
    "at": At,
    "nst": Nst,
    "vid": Vid,
    "review": Review,
    "crd": Crd,
    "cosine": Cosine,
}
