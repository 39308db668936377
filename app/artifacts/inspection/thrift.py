"""Reads Apache Thrift's compact protocol, as far as the footer of a Parquet file needs it.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. In plain Python, since the bytes are
a stranger's and this process holds credentials: whatever they say, nothing but an exception comes of it.
"""

from collections.abc import Iterator
from enum import IntEnum

MAX_DEPTH = 16
_LONGEST_VARINT = 10


class Kind(IntEnum):
    """Types of values."""

    TRUE = 1
    FALSE = 2
    BYTE = 3
    I16 = 4
    I32 = 5
    I64 = 6
    DOUBLE = 7
    BINARY = 8
    LIST = 9
    SET = 10
    STRUCT = 12


class ThriftError(ValueError):
    """The bytes are not of the compact protocol."""


class Reader:
    """Reads values one after the other; never past the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads or skips each value before the next."""
        number = 0
        while header := self._byte():
            delta, kind = header >> 4, header & 0x0F
            number = number + delta if delta else self.integer()
            yield number, kind

    def integer(self) -> int:
        """A signed number of any width."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def binary(self) -> bytes:
        """A byte string."""
        return self._take(self._varint())

    def list_header(self) -> tuple[int, int]:
        """Number of items of a list, and their type."""
        header = self._byte()
        size = header >> 4
        return (self._varint() if size == 0x0F else size), header & 0x0F  # noqa: PLR2004 - longer ones come apart

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value."""
        if depth > MAX_DEPTH:
            raise ThriftError("it is nested too deeply")
        match kind:
            case Kind.TRUE | Kind.FALSE:
                pass  # the type is the value
            case Kind.BYTE:
                self._byte()
            case Kind.I16 | Kind.I32 | Kind.I64:
                self._varint()
            case Kind.DOUBLE:
                self._take(8)
            case Kind.BINARY:
                self.binary()
            case Kind.LIST | Kind.SET:
                self._skip_list(depth)
            case Kind.STRUCT:
                for _, inner in self.fields():
                    self.skip(inner, depth + 1)
            case _:
                raise ThriftError(f"it has a value of an unknown type {kind}")

    def _skip_list(self, depth: int) -> None:
        size, kind = self.list_header()
        for _ in range(size):
            # A flag in a list takes a byte, one in a struct none.
            self.skip(Kind.BYTE if kind in {Kind.TRUE, Kind.FALSE} else kind, depth + 1)

    def _varint(self) -> int:
        value = 0
        for place in range(_LONGEST_VARINT):
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:  # noqa: PLR2004 - the flag that another byte follows
                return value
        raise ThriftError("it has a number that does not end")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._content):
            raise ThriftError("it ends too soon")
        taken = self._content[self._place:end]
        self._place = end
        return taken
