"""Every objective by its kind."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from worker.engine.objectives.at import At
from worker.engine.objectives.bce import bce
from worker.engine.objectives.binary_cross_entropy import binary_cross_entropy
from worker.engine.objectives.cka import cka
from worker.engine.objectives.cosine import Cosine
from worker.engine.objectives.crd import Crd
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.dist import dist
from worker.engine.objectives.dkd import dkd
from worker.engine.objectives.fitnet import Fitnet
from worker.engine.objectives.huber import huber
from worker.engine.objectives.js import js
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse
from worker.engine.objectives.nkd import nkd
from worker.engine.objectives.nst import Nst
from worker.engine.objectives.pkt import pkt
from worker.engine.objectives.reverse_kl import reverse_kl
from worker.engine.objectives.review import Review
from worker.engine.objectives.rkd import rkd
from worker.engine.objectives.sp import sp
from worker.engine.objectives.squared_error import squared_error
from worker.engine.objectives.ttm import ttm
from worker.engine.objectives.vid import Vid
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
