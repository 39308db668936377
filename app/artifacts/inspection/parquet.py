"""Reads the columns and the number of rows from the footer of a Parquet file, without Arrow.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.artifacts.inspection.facts import ParquetFacts
from app.artifacts.inspection.thrift import Kind, Reader, ThriftError
from stillhouse.contract.bounds import MIB
from stillhouse.contract.failures import EmptyDataError, MalformedParquetError

MAX_FOOTER = 64 * MIB
# The schema stands at the beginning of the footer; what follows grows with the rows and is not read.
_MAX_SCHEMA = 4 * MIB
MAX_NODES = 70_000
MAX_DEPTH = 32
_MAGIC = b"PAR1"
_TAIL = 8

_PHYSICAL = ("bool", "int32", "int64", "int96", "float32", "float64", "binary", "binary")
# Converted and logical types that the physical one does not tell.
_LIST_CONVERTED = 3
_TEXTS = {0, 4, 19}  # UTF-8, names of an enumeration, JSON
_INTEGERS = {11: "uint8", 12: "uint16", 13: "uint32", 14: "uint64", 15: "int8", 16: "int16", 17: "int32", 18: "int64"}
_LOGICAL_STRING, _LOGICAL_INTEGER, _LOGICAL_FLOAT16 = 1, 10, 15


@dataclass
class _Node:
    """An entry of the schema, which is a tree written depth first."""

    name: str = ""
    physical: int | None = None
    num_children: int = 0
    converted: int | None = None
    logical: int | None = None


def inspect_parquet(file: BinaryIO, size: int) -> ParquetFacts:
    """Facts of the columns. Raises MalformedParquetError or EmptyDataError."""
    try:
        nodes, num_rows = _read_footer(Reader(_footer(file, size)))
        columns = dict(_columns(nodes))
    except ThriftError as error:
        raise MalformedParquetError(f"The footer of the Parquet file is damaged: {error}.") from error
    if not columns or num_rows == 0:
        raise EmptyDataError(f"The Parquet file has {len(columns)} columns and {num_rows} rows: no samples.")
    return ParquetFacts(num_rows=num_rows, columns=columns)


def _footer(file: BinaryIO, size: int) -> bytes:
    head = file.read(4)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    if tail[4:] == b"PARE" or head == b"PARE":
        raise MalformedParquetError("The Parquet file is encrypted; write it without encryption.")
    if head != _MAGIC or tail[4:] != _MAGIC:
        raise MalformedParquetError("The file does not begin and end as Parquet: it is cut short, or is no Parquet.")
    length = int.from_bytes(tail[:4], "little")
    if length > min(size - _TAIL - len(_MAGIC), MAX_FOOTER):
        raise MalformedParquetError(f"A footer of {length:,} bytes cannot be: the file has {size:,}.")
    file.seek(size - _TAIL - length)
    return file.read(min(length, _MAX_SCHEMA))


def _read_footer(reader: Reader) -> tuple[list[_Node], int]:
    """The schema, and the number of rows: the second and third field of what the footer holds."""
    nodes: list[_Node] = []
    for number, kind in reader.fields():
        if (number, kind) == (2, Kind.LIST):
            nodes = list(_nodes(reader))
        elif (number, kind) == (3, Kind.I64):
            num_rows = reader.integer()
            if nodes and num_rows >= 0:
                return nodes, num_rows
            break
        else:
            reader.skip(kind)
    raise ThriftError("it has no schema and number of rows")


def _nodes(reader: Reader) -> Iterator[_Node]:
    size, kind = reader.list_header()
    if kind != Kind.STRUCT or size > MAX_NODES:
        raise ThriftError(f"its schema has {size:,} entries; at most {MAX_NODES:,} are read")
    for _ in range(size):
        yield _node(reader)


def _node(reader: Reader) -> _Node:
    node = _Node()
    for number, kind in reader.fields():
        match number, kind:
            case 1, Kind.I32:
                node.physical = reader.integer()
            case 4, Kind.BINARY:
                node.name = reader.binary().decode("utf-8", "replace")
            case 5, Kind.I32:
                node.num_children = reader.integer()
            case 6, Kind.I32:
                node.converted = reader.integer()
            case 10, Kind.STRUCT:
                node.logical = _logical(reader)
            case _:
                reader.skip(kind)
    return node


def _logical(reader: Reader) -> int | None:
    """Which field of the union is set."""
    found = None
    for number, kind in reader.fields():
        found = number
        reader.skip(kind)
    return found


def _columns(nodes: list[_Node]) -> Iterator[tuple[str, str]]:
    """Name and type of each column at the top."""
    rest = iter(nodes)
    root = next(rest)
    for node in _children(root, rest):
        yield node.name, _type(node, rest, 0)


def _type(node: _Node, rest: Iterator[_Node], depth: int) -> str:
    """The type by Arrow's name: `int64`, `string`, `binary`, `list<float32>`, `struct<bytes: binary, path: string>`."""
    if depth > MAX_DEPTH:
        raise ThriftError("its schema is nested too deeply")
    if node.num_children <= 0:
        return _leaf(node)
    if node.converted == _LIST_CONVERTED:
        return f"list<{_item(node, rest, depth)}>"
    fields = [f"{child.name}: {_type(child, rest, depth + 1)}" for child in _children(node, rest)]
    return f"struct<{', '.join(fields)}>"


def _item(node: _Node, rest: Iterator[_Node], depth: int) -> str:
    """The type of a list's items, which lie in a repeated group of one field."""
    (group,) = _children(node, rest) if node.num_children == 1 else (None,)
    if group is None:
        raise ThriftError(f"the list `{node.name[:200]}` has {node.num_children} fields")
    if group.num_children != 1:
        return _type(group, rest, depth + 1)
    (item,) = _children(group, rest)
    return _type(item, rest, depth + 1)


def _children(node: _Node, rest: Iterator[_Node]) -> Iterator[_Node]:
    """A child must be taken with all below it before the next is asked for."""
    for _ in range(node.num_children):
        child = next(rest, None)
        if child is None:
            raise ThriftError("its schema ends too soon")
        yield child


def _leaf(node: _Node) -> str:
    if node.converted in _TEXTS or node.logical == _LOGICAL_STRING:
        return "string"
    if node.logical == _LOGICAL_FLOAT16:
        return "float16"
    if node.converted in _INTEGERS:
        return _INTEGERS[node.converted]
    if node.physical is None or not 0 <= node.physical < len(_PHYSICAL):
        raise ThriftError(f"column `{node.name[:200]}` is of an unknown type")
    if node.converted is not None or node.logical not in {None, _LOGICAL_INTEGER}:
        return f"{_PHYSICAL[node.physical]} (of another meaning)"
    return _PHYSICAL[node.physical]
