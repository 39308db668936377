"""Checkpoints of torch.save: zip files of plain tensors, opened without running anything."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from stillhouse.contract.failures import MalformedPytorchError, WeightsMismatchError

ZIP = b"PK\x03\x04"
# Under which the weights of a model are saved with other things, in the order of preference: averages come last.
NESTS = (
    "state_dict", "model", "model_state_dict", "net", "network", "weights", "model_ema", "state_dict_ema", "ema",
    "ema_state_dict",
)
MAX_REASON = 300
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]{1,200})")
NUM_NAMED = 10


def is_pytorch(path: Path) -> bool:
    """Whether the file begins as torch.save writes."""
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


def read_pytorch(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the model in the file by name, mapped, not read; and remarks on where they were found.

    Raises MalformedPytorchError or WeightsMismatchError.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # hostile bytes raise whatever they like
        raise MalformedPytorchError(
            f"the file cannot be read as plain weights of torch.save{_reason(error)}. Save them with "
            "torch.save(model.state_dict(), path), or as safetensors"
        ) from error
    return _find(content)


def _reason(error: Exception) -> str:
    """In short; never torch's own advice, which is to open the file in the unsafe way."""
    if isinstance(error, UnpicklingError):
        found = _FORBIDDEN.search(str(error))
        return f": it imports {found[1]}" if found else ": it holds something else"
    return f": {str(error).splitlines()[0][:MAX_REASON]}" if str(error) else ""


def _find(content: Any) -> tuple[dict[str, Tensor], list[str]]:  # noqa: ANN401 - whatever was saved
    nests = {key: _tensors(content[key]) for key in NESTS if isinstance(content, Mapping) and key in content}
    held = {key: tensors for key, tensors in nests.items() if tensors}
    if not held:
        tensors = _tensors(content)
        if not tensors:
            raise WeightsMismatchError(f"the file holds no weights by name: {_kind(content)}")
        return tensors, _left_out(content, "the weights", set(tensors))
    chosen = next(iter(held))
    others = [f"`{key}`" for key in held if key != chosen]
    beside = f"; {', '.join(others)} beside it {'was' if len(others) == 1 else 'were'} not" if others else ""
    return held[chosen], [
        f"the weights under the key `{chosen}` were taken{beside}",
        *_left_out(content[chosen], f"`{chosen}`", set(held[chosen])),
    ]


def _tensors(content: Any) -> dict[str, Tensor]:  # noqa: ANN401 - whatever was saved
    """The plain tensors of a mapping; none of anything else."""
    if not isinstance(content, Mapping):
        return {}
    return {name: value.detach() for name, value in content.items() if isinstance(name, str) and _is_plain(value)}


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - whatever was saved
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        and not value.is_quantized and not value.is_complex()
    )


def _left_out(content: Any, where: str, kept: set[str]) -> list[str]:  # noqa: ANN401 - whatever was saved
    others = [str(key)[:64] for key in content if key not in kept]
    more = " and more" if len(others) > NUM_NAMED else ""
    return [f"beside {where}, these are no tensors: {', '.join(others[:NUM_NAMED])}{more}"] if others else []


def _kind(content: Any) -> str:  # noqa: ANN401 - whatever was saved
    if isinstance(content, Mapping):
        return f"its keys are {', '.join(str(key)[:64] for key in list(content)[:NUM_NAMED])}"
    return f"it holds a {type(content).__name__}"
