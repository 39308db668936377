"""Which tensor of a file is which of a model's, and what is said when they do not belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

from stillhouse.contract.failures import NonFiniteWeightsError, WeightsMismatchError

Tensors = Mapping[str, Tensor]
Misshapen = Mapping[str, tuple[Sequence[int], Sequence[int]]]  # name -> shape that was found, shape that was wanted

NUM_NAMED = 5  # tensors that a message lists before it says how many more there are
# What training code puts before every name: of DataParallel, torch.compile, and of modules around the model.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
MAX_PREFIXES = 3
# Counters that profilers leave in a model.
LEFTOVERS = ("total_ops", "total_params")
COUNTER = "num_batches_tracked"
MAX_OUTPUT_TENSORS = 4  # weight and bias of at most two heads


@dataclass(frozen=True)
class Recognized:
    """Tensors under the model's names. The remarks tell what was done to them."""

    tensors: dict[str, Tensor]
    remarks: list[str] = field(default_factory=list)


def recognize(model: nn.Module, tensors: Tensors) -> Recognized:
    """The tensors under the names that `model` has for them, as far as they can be told."""
    expected = model.state_dict()
    remarks: list[str] = []
    prefixes, found = _stripped(set(expected), tensors)
    if prefixes:
        remarks.append(f"the prefix `{''.join(prefixes)}` was removed from the names of the tensors")
    own_buffers = {name for name, _ in model.named_buffers()}
    idle = [name for name in found if name not in expected and (name in own_buffers or _last(name) in LEFTOVERS)]
    remarks += _listed("left out, since the model makes them itself or needs none", idle)
    counters = [name for name in expected if name not in found and _last(name) == COUNTER]
    if counters:
        remarks.append(f"{len(counters)} counters of batches ({COUNTER}) were missing and begin at 0")
    kept = {name: tensor for name, tensor in found.items() if name not in set(idle)}
    return Recognized(kept | {name: torch.tensor(0) for name in counters}, remarks)


def check_weights(model: nn.Module, tensors: Tensors) -> None:
    """Raise WeightsMismatchError or NonFiniteWeightsError, naming the tensors, unless they are the model's."""
    check_names_and_shapes(model, tensors)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise NonFiniteWeightsError("; ".join(_listed("weights that are NaN or infinite", broken)))


def check_names_and_shapes(model: nn.Module, tensors: Tensors) -> None:
    """Raise WeightsMismatchError, naming the tensors and guessing at the cause, unless they are the model's."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    foreign = [name for name in tensors if name not in expected]
    misshapen = {
        name: (tensors[name].shape, tensor.shape) for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    }
    problems = [
        *_listed("missing", missing),
        *_listed("not in the architecture", foreign),
        *_listed("of another shape", [
            f"{name} {list(found)} instead of {list(wanted)}" for name, (found, wanted) in misshapen.items()
        ]),
    ]
    if problems:
        guess = _guess(model, missing, foreign, misshapen)
        raise WeightsMismatchError(
            f"the weights do not belong to the named architecture: {'; '.join(problems)}. {guess}"
        )


def _stripped(expected: set[str], tensors: Tensors) -> tuple[Sequence[str], dict[str, Tensor]]:
    """The prefixes that have to go for the names to match, where that helps, and the tensors without them."""
    best: tuple[Sequence[str], dict[str, Tensor]] = ((), dict(tensors))
    if expected <= tensors.keys():
        return best
    for count in range(1, MAX_PREFIXES + 1):
        for prefixes in product(PREFIXES, repeat=count):
            whole = "".join(prefixes)
            shorter = {name.removeprefix(whole): tensor for name, tensor in tensors.items()}
            if len(shorter) == len(tensors) and _num_known(expected, shorter) > _num_known(expected, best[1]):
                best = (prefixes, shorter)
    return best


def _num_known(expected: set[str], tensors: Tensors) -> int:
    return len(expected & tensors.keys())


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _guess(model: nn.Module, missing: Sequence[str], foreign: Sequence[str], misshapen: Misshapen) -> str:
    """What most likely went wrong."""
    if len(missing) == len(model.state_dict()):
        return "No name is in common: these are the weights of another model, or of another library's version of it."
    if missing and foreign:
        return "Names differ on both sides: was another variant trained, or the same with another head?"
    if missing:
        return "The architecture has layers that the file lacks: was a shallower model trained, or another variant?"
    if foreign:
        return "The file has layers that the architecture lacks: was a deeper model trained, or another variant?"
    return _guess_at_shapes(misshapen)


def _guess_at_shapes(misshapen: Misshapen) -> str:
    if any("pos" in name.lower() for name in misshapen):
        return "Positions were learned for images of another size: give images of the size that it was trained on."
    axes = {name: _differing_axes(*shapes) for name, shapes in misshapen.items()}
    found, wanted = next(iter(misshapen.values()))
    if len(misshapen) <= MAX_OUTPUT_TENSORS and all(differing == [0] for differing in axes.values()):
        return f"The last layer has {found[0]} outputs, not {wanted[0]}: set num_classes to what it was trained for."
    if list(axes.values()) == [[1]]:
        return f"The first layer reads inputs of {found[1]}, and these have {wanted[1]}."
    return "A model of another width or variant was trained."


def _differing_axes(found: Sequence[int], wanted: Sequence[int]) -> list[int]:
    if len(found) != len(wanted):
        return []
    return [axis for axis, sizes in enumerate(zip(found, wanted, strict=True)) if sizes[0] != sizes[1]]


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return [f"{what}: {', '.join(names[:NUM_NAMED])}{more}"]
