"""Reads the header of a safetensors file: https://github.com/huggingface/safetensors#format."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from app.artifacts.inspection.facts import ArrayFacts, SafetensorsFacts
from stillhouse.contract.bounds import MIB
from stillhouse.contract.failures import MalformedSafetensorsError
from stillhouse.contract.spec import Architecture, Normalization

METADATA_KEY = "stillhouse"
MAX_HEADER = 4 * MIB
MAX_LISTED_TENSORS = 512
MAX_METADATA = 64
MAX_METADATA_VALUE = 1024
MAX_AXES = 16

_LENGTH_BYTES = 8
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16",
    "BF16": "bfloat16", "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64",
    "F64": "float64", "C64": "complex64",
}
_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Architecture)


def inspect_safetensors(file: BinaryIO, size: int) -> SafetensorsFacts:
    """Facts of the checkpoint. Raises MalformedSafetensorsError."""
    header, begin = _header(file, size)
    metadata = _metadata(header.pop("__metadata__", None))
    tensors = {name: _tensor(name, entry) for name, entry in header.items()}
    if not tensors:
        raise MalformedSafetensorsError("The file holds no tensors.")
    _check_offsets(((name, *tensors[name][1:]) for name in tensors), size - begin)
    facts = {name: tensor[0] for name, tensor in tensors.items()}
    return SafetensorsFacts(
        num_tensors=len(facts),
        num_parameters=sum(prod(tensor.shape) for tensor in facts.values()),
        tensors=facts if len(facts) <= MAX_LISTED_TENSORS else None,
        metadata=_listed(metadata),
        **_about(metadata.get(METADATA_KEY)),
    )


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    if size < _LENGTH_BYTES:
        raise MalformedSafetensorsError(f"The file has only {size} bytes; the header's length alone takes 8.")
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > size - _LENGTH_BYTES:
        raise MalformedSafetensorsError(
            f"The header claims {length} bytes, but only {size - _LENGTH_BYTES} follow: the file is cut short, or is "
            "not safetensors."
        )
    if length > MAX_HEADER:
        raise MalformedSafetensorsError(f"The header has {length} bytes; this service reads up to {MAX_HEADER}.")
    try:
        header = from_json(file.read(length), allow_inf_nan=False)
    except ValueError as error:
        raise MalformedSafetensorsError(f"The header is not JSON: {error}.") from error
    if not isinstance(header, dict):
        raise MalformedSafetensorsError("The header is not a JSON object.")
    return header, _LENGTH_BYTES + length


def _metadata(metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedSafetensorsError("__metadata__ is not an object of strings.")
    return metadata


def _tensor(name: str, entry: object) -> tuple[ArrayFacts, int, int]:
    """Facts of a tensor, and the offsets of its first byte and of the byte after its last."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            dtype in _ITEM_BYTES and len(shape) <= MAX_AXES and all(_is_count(length) for length in shape)
        ):
            pass
        case _:
            raise MalformedSafetensorsError(
                f"Tensor `{name[:200]}` has no valid dtype, shape and data_offsets in the header."
            )
    wanted = prod(shape) * _ITEM_BYTES[dtype]
    if end - begin != wanted:
        raise MalformedSafetensorsError(
            f"Tensor `{name[:200]}` of type {dtype} and shape {shape} takes {wanted} bytes, but its offsets span "
            f"{end - begin}."
        )
    return ArrayFacts(dtype=_DTYPES.get(dtype, dtype.lower()), shape=shape), begin, end


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_offsets(spans: Iterable[tuple[str, int, int]], num_bytes: int) -> None:
    """Tensors lie one after the other from the first byte to the last, without gap or overlap."""
    place = 0
    for name, begin, end in sorted(spans, key=lambda span: span[1:]):
        if begin != place:
            raise MalformedSafetensorsError(
                f"Tensor `{name[:200]}` begins at byte {begin} of the data, where byte {place} was expected."
            )
        place = end
    if place != num_bytes:
        raise MalformedSafetensorsError(
            f"The header describes {place} bytes of data, but the file has {num_bytes}: it is "
            f"{'cut short' if num_bytes < place else 'longer than it says'}."
        )


def _listed(metadata: Mapping[str, str]) -> dict[str, str]:
    short = {
        key: value for key, value in metadata.items()
        if key != METADATA_KEY and len(key) + len(value) <= MAX_METADATA_VALUE
    }
    return dict(list(short.items())[:MAX_METADATA])


def _about(text: str | None) -> dict[str, Any]:
    """Architecture and normalisation that the checkpoint tells of itself; where it tells nonsense, why."""
    if text is None:
        return {}
    try:
        about = from_json(text, allow_inf_nan=False)
        architecture = _ARCHITECTURE.validate_python(about["architecture"])
        normalization = about.get("normalization")
        return {
            "architecture": architecture,
            "normalization": None if normalization is None else Normalization.model_validate(normalization),
        }
    except ValidationError as error:
        return {"architecture_problem": error.errors()[0]["msg"][:MAX_METADATA_VALUE]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"architecture_problem": "The metadata key `stillhouse` does not hold an architecture as JSON."}
