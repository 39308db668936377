"""How much work a model's answer is, counted by running it without memory; found on the way whether it answers."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.contract.failures import InputShapeMismatchError, UnbuildableModelError
from stillhouse.contract.spec import Architecture
from stillhouse.models import build_complete, describe, outlined
from worker.engine.memory import check_memory, num_bytes

NUM_SAMPLES = 2  # one alone has no batch statistics
MAX_REASON = 300


def count_flops(architecture: Architecture) -> int:
    """Floating-point operations of one answer of a complete architecture.

    Raises InputShapeMismatchError when it cannot read such inputs, UnbuildableModelError when its answer is not one
    logit per class.
    """
    shape, num_classes = architecture.input_shape or (), architecture.num_classes or 0
    model = outlined(architecture)
    try:
        answer, flops = run_counted(model, torch.empty(NUM_SAMPLES, *shape, device="meta"))
    except Exception as error:  # noqa: BLE001 - of a library's model; what it cannot do without memory, it may do with
        answer, flops = _count_for_real(architecture, num_bytes(model), error)
    if not isinstance(answer, Tensor) or answer.shape != (NUM_SAMPLES, num_classes):
        told = f"shape {list(answer.shape[1:])}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise UnbuildableModelError(f"{_called(architecture)} answers with {told}, not with {num_classes} logits")
    return flops // NUM_SAMPLES


def run_counted(model: nn.Module, inputs: Tensor) -> tuple[object, int]:
    """The model's answer, and the operations that it took."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer = model(inputs)
    return answer, int(counter.get_total_flops())


def _count_for_real(architecture: Architecture, needed: int, error: Exception) -> tuple[object, int]:
    shape = architecture.input_shape or ()
    check_memory(needed, f"{_called(architecture)}, which cannot be counted without memory,")
    with torch.random.fork_rng(devices=[]):
        model = build_complete(architecture)
        try:
            return run_counted(model, torch.zeros(NUM_SAMPLES, *shape))
        except Exception as again:  # noqa: BLE001 - as above; both are told
            reason = str(again).splitlines()[0][:MAX_REASON] if str(again) else type(again).__name__
            raise InputShapeMismatchError(
                f"{_called(architecture)} cannot read inputs of {list(shape)}: {reason}"
            ) from error


def _called(architecture: Architecture) -> str:
    return describe(architecture, architecture.input_shape or (), architecture.num_classes or 0)
