"""Reads the header row of a CSV file, and whether it is text."""

import codecs
from typing import BinaryIO

from app.artifacts.inspection.facts import CsvFacts
from stillhouse.contract.bounds import MIB
from stillhouse.contract.failures import EmptyDataError, MalformedCsvError

MAX_HEADER = MIB // 2


def inspect_csv(file: BinaryIO, size: int) -> CsvFacts:
    """Facts of the table. Raises MalformedCsvError or EmptyDataError."""
    _check_text(file, size)
    file.seek(0)
    header = file.readline(MAX_HEADER)
    if len(header) == MAX_HEADER:
        raise MalformedCsvError(f"The header row is longer than {MAX_HEADER:,} bytes; is this a CSV file?")
    if not header.removeprefix(codecs.BOM_UTF8).strip():
        raise MalformedCsvError("The first line is empty; write the names of the columns there.")
    if not file.read(MIB).strip():
        raise EmptyDataError("The CSV file has a header row and no other: no samples.")
    return CsvFacts(header=header.decode("utf-8-sig").rstrip("\r\n"))


def _check_text(file: BinaryIO, size: int) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    place = 0
    while piece := file.read(MIB):
        try:
            decoder.decode(piece, final=place + len(piece) == size)
        except UnicodeDecodeError as error:
            line += piece.count(b"\n", 0, error.start)
            raise MalformedCsvError(f"Line {line:,} is not UTF-8; save the file as UTF-8.") from error
        if b"\0" in piece:
            raise MalformedCsvError("The file has zero bytes: it is no text.")
        line += piece.count(b"\n")
        place += len(piece)
