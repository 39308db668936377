"""Looks into a zip of torch.save without torch, and without opening the pickle inside.

What is refused here, torch's `weights_only` would refuse too; told at upload, it costs nobody a place in the queue.
"""

import pickletools
import stat
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

from app.artifacts.inspection.facts import PytorchFacts
from app.artifacts.inspection.pickles import ZIP_ERRORS
from stillhouse.contract.bounds import MIB, Frugal
from stillhouse.contract.failures import MalformedPytorchError, PickleRefusedError

MAX_PICKLE = 4 * MIB
MAX_DIRECTORY = 4 * MIB
MAX_MEMBERS = 40_000
_ENCRYPTED = 0x1
_ADVICE = "Save the weights alone, with torch.save(model.state_dict(), path), or better as safetensors."

# The instructions that torch's weights_only reader knows. None of them runs code; GLOBAL names what is imported.
_OPCODES = frozenset({
    "PROTO", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET", "BINPERSID", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINGET",
    "LONG_BINGET", "BINPUT", "LONG_BINPUT", "LONG1", "STOP",
})
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = (
    "float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool", "uint16", "uint32",
    "uint64", "float8_e4m3fn", "float8_e5m2",
)
# What plain weights, and what is usually saved beside them, are made of. Fewer than weights_only allows: nothing here
# takes memory that is not in the file.
_IMPORTS = frozenset({
    "collections OrderedDict", "collections Counter", "__builtin__ set", "builtins set", "torch Size", "torch device",
    "torch.nn.parameter Parameter", "torch.serialization _get_layout", "torch.storage UntypedStorage",
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state",
    *(f"torch {name}Storage" for name in _STORAGES), *(f"torch {name}" for name in _DTYPES),
})


def inspect_pytorch(file: BinaryIO, size: int) -> PytorchFacts:
    """Facts of the checkpoint. Raises MalformedPytorchError or PickleRefusedError."""
    if file.read(4) != b"PK\x03\x04":
        raise MalformedPytorchError(f"The file does not begin as a zip of torch.save. {_ADVICE}")
    try:
        with zipfile.ZipFile(Frugal(file, size, MAX_DIRECTORY)) as archive:
            pickled = _find_pickle(archive.infolist(), size)
            content = archive.read(pickled)
    except ZIP_ERRORS as error:
        raise MalformedPytorchError(f"The file is not a sound zip of torch.save: {error}.") from error
    return PytorchFacts(num_tensors=_walk(content))


def _find_pickle(members: Sequence[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    """The one pickle of the zip, once all members were found to be as torch.save writes them."""
    names = [member.filename for member in members]
    if len(members) > MAX_MEMBERS or len(set(names)) < len(names):
        raise MalformedPytorchError(f"The zip repeats a name, or has more than {MAX_MEMBERS} members.")
    folders = {name.partition("/")[0] for name in names}
    within = {name.partition("/")[2]: member for name, member in zip(names, members, strict=True)}
    if len(folders) != 1 or "data.pkl" not in within:
        raise MalformedPytorchError(f"The zip is not one folder with a data.pkl, as torch.save writes it. {_ADVICE}")
    if "constants.pkl" in within:
        raise PickleRefusedError(f"The file is TorchScript, which is a program. {_ADVICE}")
    for member in members:
        _check_member(member)
    if sum(member.file_size for member in members) > size:
        raise MalformedPytorchError("The members of the zip overlap: they claim more bytes than the file has.")
    if within["data.pkl"].file_size > MAX_PICKLE:
        raise MalformedPytorchError(
            f"The data.pkl has {within['data.pkl'].file_size} bytes; this service reads up to {MAX_PICKLE}. {_ADVICE}"
        )
    return within["data.pkl"]


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename[:200]
    if ".." in member.filename.split("/") or "\\" in member.filename or member.filename.startswith("/"):
        raise MalformedPytorchError(f"Member `{name}` leaves its folder.")
    if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG}:
        raise MalformedPytorchError(f"Member `{name}` is not a plain file.")
    is_stored = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
    if not is_stored or member.flag_bits & _ENCRYPTED:
        raise MalformedPytorchError(f"Member `{name}` is packed or encrypted, which torch.save does not do.")


def _walk(content: bytes) -> int:
    """How many tensors the pickle describes. Reads its instructions one by one and follows none."""
    num_tensors, ended = 0, False
    try:
        for code, argument, _ in pickletools.genops(content):
            _check_instruction(code.name, argument)
            num_tensors += code.name == "BINPERSID"
            ended = code.name == "STOP"
    except (ValueError, UnicodeDecodeError, MemoryError) as error:
        raise PickleRefusedError(
            f"The data.pkl in the zip is no pickle of plain weights: {str(error)[:200]}. {_ADVICE}"
        ) from error
    if not ended or not num_tensors:
        raise MalformedPytorchError(f"The file holds no tensors. {_ADVICE}")
    return num_tensors


def _check_instruction(name: str, argument: object) -> None:
    if name == "GLOBAL" and argument not in _IMPORTS:
        imported = str(argument).replace(" ", ".")[:200]
        raise PickleRefusedError(f"The file imports {imported} when it is opened, which could run code. {_ADVICE}")
    if name not in _OPCODES:
        raise PickleRefusedError(
            f"The pickle in the file uses {name}, which torch does not read as plain weights. {_ADVICE}"
        )
