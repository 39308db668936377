"""Reads what an ONNX file says of its inputs, outputs and weights, without ONNX, NumPy or the weights themselves.

ONNX is a protocol buffer: fields of a number, a wire type and a value. Only those that matter are read; what they hold
else, weights above all, is stepped over.
"""

from collections.abc import Iterator
from math import prod
from typing import BinaryIO, Final, NamedTuple

from app.artifacts.inspection.facts import OnnxFacts, OnnxValue
from stillhouse.contract.failures import MalformedOnnxError

MAX_FIELDS = 2_000_000
MAX_TEXT = 64 * 1024
MAX_VALUES = 65_536
_MOST_VALUES_PER_BYTE: Final = 2  # of four bits each
MAX_AXES = 32
MAX_DEPTH = 16

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}
# Numbers of the fields, by message, as onnx.proto gives them.
_MODEL_PRODUCER, _MODEL_GRAPH = 2, 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 8, 13, 14
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1


class _Span(NamedTuple):
    """Bytes of a message, or of a text."""

    begin: int
    end: int


class _Field(NamedTuple):
    number: int
    value: int | _Span  # a number, or where the bytes are


def inspect_onnx(file: BinaryIO, size: int) -> OnnxFacts:
    """Facts of the model's graph. Raises MalformedOnnxError."""
    reader = _Reader(file)
    producer, graph = "", None
    for field in reader.fields(_Span(0, size)):
        if field.number == _MODEL_PRODUCER:
            producer = reader.text(field.value)
        elif field.number == _MODEL_GRAPH and isinstance(field.value, _Span):
            graph = field.value
    if graph is None:
        raise MalformedOnnxError("The file holds no graph: it is no ONNX model.")
    return _graph(reader, graph, producer)


def _graph(reader: "_Reader", span: _Span, producer: str) -> OnnxFacts:
    inputs: dict[str, OnnxValue] = {}
    outputs: dict[str, OnnxValue] = {}
    initialized: set[str] = set()
    num_parameters = 0
    for field in reader.fields(span):
        if not isinstance(field.value, _Span):
            continue
        if field.number == _GRAPH_INITIALIZER:
            name, count = _tensor(reader, field.value)
            initialized.add(name)
            num_parameters += count
        elif field.number in {_GRAPH_INPUT, _GRAPH_OUTPUT}:
            name, value = _value(reader, field.value)
            values = inputs if field.number == _GRAPH_INPUT else outputs
            values[name] = value
            if len(values) > MAX_VALUES:
                raise MalformedOnnxError(f"The model has more than {MAX_VALUES} inputs or outputs.")
        elif field.number == _GRAPH_NODE:
            _check_node(reader, field.value, 0)
        elif field.number == _GRAPH_SPARSE:
            raise MalformedOnnxError("The model has sparse weights, which are not supported; export them densely.")
    # Old exporters list weights among the inputs.
    inputs = {name: value for name, value in inputs.items() if name not in initialized}
    if not inputs or not outputs:
        raise MalformedOnnxError("The model has no inputs or no outputs.")
    return OnnxFacts(producer=producer[:200], inputs=inputs, outputs=outputs, num_parameters=num_parameters)


def _tensor(reader: "_Reader", span: _Span) -> tuple[str, int]:
    """Name and number of values of a weight. Raises MalformedOnnxError for one that is kept in another file."""
    name, dims = "", []
    for field in reader.fields(span):
        if field.number == _TENSOR_NAME:
            name = reader.text(field.value)
        elif field.number == _TENSOR_DIMS:
            dims += reader.numbers(field.value)
        elif field.number == _TENSOR_EXTERNAL or (field.number == _TENSOR_LOCATION and field.value):
            raise MalformedOnnxError(
                "The model keeps weights in another file; save it as one file (`onnx.save(model, path)` after "
                "`onnx.load(path)`, or torch.onnx.export(..., external_data=False))."
            )
    if len(dims) > MAX_AXES or any(length < 0 or length >= 2**40 for length in dims):
        raise MalformedOnnxError(f"Weight `{name[:200]}` has an impossible shape.")
    count = prod(dims)
    if count > _MOST_VALUES_PER_BYTE * (span.end - span.begin):  # whoever believed it would reserve all of it
        raise MalformedOnnxError(f"Weight `{name[:200]}` claims {count:,} values, and the file does not hold as many.")
    return name, count


def _check_node(reader: "_Reader", span: _Span, depth: int) -> None:
    """Look for weights in other files among a node's constants and in graphs within the graph."""
    for attribute in reader.messages(span, {_NODE_ATTRIBUTE}):
        for tensor in reader.messages(attribute, {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS}):
            _tensor(reader, tensor)
        for graph in reader.messages(attribute, {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}):
            if depth >= MAX_DEPTH:
                raise MalformedOnnxError(f"The model nests graphs more than {MAX_DEPTH} deep.")
            for tensor in reader.messages(graph, {_GRAPH_INITIALIZER}):
                _tensor(reader, tensor)
            for node in reader.messages(graph, {_GRAPH_NODE}):
                _check_node(reader, node, depth + 1)


def _value(reader: "_Reader", span: _Span) -> tuple[str, OnnxValue]:
    """Name, type and shape of an input or output; no type where it is no tensor."""
    name, dtype, shape = "", None, None
    for field in reader.fields(span):
        if field.number == _VALUE_NAME:
            name = reader.text(field.value)
        elif field.number == _VALUE_TYPE and isinstance(field.value, _Span):
            for tensor in reader.messages(field.value, {_TYPE_TENSOR}):
                dtype, shape = _tensor_type(reader, tensor)
    return name, OnnxValue(dtype=dtype, shape=shape)


def _tensor_type(reader: "_Reader", span: _Span) -> tuple[str | None, list[int | None] | None]:
    dtype: str | None = None
    shape: list[int | None] | None = None
    for field in reader.fields(span):
        if field.number == _TENSOR_TYPE_ELEMENT and isinstance(field.value, int):
            dtype = _TYPES.get(field.value, "unknown")
        elif field.number == _TENSOR_TYPE_SHAPE and isinstance(field.value, _Span):
            shape = [_dim(reader, dim) for dim in reader.messages(field.value, {_SHAPE_DIM})]
            if len(shape) > MAX_AXES:
                raise MalformedOnnxError(f"An input or output has more than {MAX_AXES} axes.")
    return dtype, shape


def _dim(reader: "_Reader", span: _Span) -> int | None:
    """Length of an axis; None for a free one."""
    lengths = [field.value for field in reader.fields(span) if field.number == _DIM_VALUE]
    return next((length for length in lengths if isinstance(length, int) and 0 < length < 2**40), None)


class _Reader:
    """Steps through messages. What hostile bytes can make it do is bounded by the number of fields."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._num_fields = 0

    def fields(self, span: _Span) -> Iterator[_Field]:
        """The fields of a message in their order."""
        at = span.begin
        while at < span.end:
            self._num_fields += 1
            if self._num_fields > MAX_FIELDS:
                raise MalformedOnnxError(f"The model has more than {MAX_FIELDS:,} parts.")
            key, at = self._varint(at, span.end)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = self._varint(at, span.end)
                yield _Field(number, value)
            elif wire in {_BYTES, _FIXED32, _FIXED64}:
                length, at = self._varint(at, span.end) if wire == _BYTES else (4 if wire == _FIXED32 else 8, at)
                if length > span.end - at:
                    raise MalformedOnnxError("The file is cut short, or is not ONNX.")
                yield _Field(number, _Span(at, at + length))
                at += length
            else:
                raise MalformedOnnxError("The file is not ONNX.")

    def messages(self, span: _Span, numbers: set[int]) -> Iterator[_Span]:
        """Where the messages in fields of these numbers are."""
        for field in self.fields(span):
            if field.number in numbers and isinstance(field.value, _Span):
                yield field.value

    def text(self, value: int | _Span) -> str:
        """The field's text. Raises MalformedOnnxError where it is none."""
        if not isinstance(value, _Span) or value.end - value.begin > MAX_TEXT:
            raise MalformedOnnxError("A name in the model is no text, or too long.")
        self._file.seek(value.begin)
        try:
            return self._file.read(value.end - value.begin).decode()
        except UnicodeDecodeError as error:
            raise MalformedOnnxError("A name in the model is not UTF-8.") from error

    def numbers(self, value: int | _Span) -> list[int]:
        """A field of whole numbers, packed or not."""
        if isinstance(value, int):
            return [value]
        found: list[int] = []
        at = value.begin
        while at < value.end and len(found) <= MAX_AXES:
            number, at = self._varint(at, value.end)
            found.append(number)
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of 7 bits per byte, and where it ends."""
        self._file.seek(at)
        taken = self._file.read(min(10, end - at))
        value = 0
        for place, byte in enumerate(taken):
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
                return value, at + place + 1
        raise MalformedOnnxError("The file is cut short, or is not ONNX.")
