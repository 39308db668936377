"""Landlock by ctypes: a process closes files, TCP ports, signals and abstract sockets to itself and all it starts.

Numbers and layouts are those of linux/landlock.h. What a kernel does not know is left out; `abi` tells how much.
"""

import ctypes
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NET_PORT: Final = 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_FIFO, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 10, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

READ: Final = _READ_FILE | _READ_DIR
RUN: Final = READ | _EXECUTE
# No devices, no sockets, and nothing that was written is run.
WRITE: Final = (
    READ | _WRITE_FILE | _TRUNCATE | _REFER | _REMOVE_DIR | _REMOVE_FILE
    | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM
)
DEVICE: Final = _READ_FILE | _WRITE_FILE | _IOCTL_DEV

BIND_TCP: Final = 1 << 0
CONNECT_TCP: Final = 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

# The first ABI that holds each; before ABI 2, no file can be moved between folders.
ABI_FILES: Final = 2
ABI_TRUNCATE: Final = 3
ABI_TCP: Final = 4
ABI_IOCTL: Final = 5
ABI_SCOPES: Final = 6
_NUM_RIGHTS: Final = {2: 14, 3: 15, 4: 15}
_MOST_RIGHTS: Final = 16


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPortAttr(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """The kernel's Landlock ABI; 0 where it has none, or was started without."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except (OSError, AttributeError):
        return 0


class Ruleset:
    """What stays allowed. Everything that the kernel can hold is denied besides."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no Landlock, or one too old to be of use."""
        self._abi = abi()
        if self._abi < ABI_FILES:
            raise OSError(f"the kernel's Landlock ABI is {self._abi}; {ABI_FILES} is needed")
        self._handled = (1 << _NUM_RIGHTS.get(self._abi, _MOST_RIGHTS)) - 1
        attr = _RulesetAttr(
            files=self._handled,
            net=BIND_TCP | CONNECT_TCP if self._abi >= ABI_TCP else 0,
            scoped=_ABSTRACT_SOCKETS | _SIGNALS if self._abi >= ABI_SCOPES else 0,
        )
        self._descriptor = _syscall(
            _CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr)), ctypes.c_uint32(0)
        )

    def allow(self, path: Path, access: int) -> None:
        """Allow this below the path, if there is such a path. Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # what is closed stays closed
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                self.allow_opened(descriptor, access)
            finally:
                os.close(descriptor)

    def allow_opened(self, descriptor: int, access: int) -> None:
        """Allow this below what is open. Raises OSError."""
        allowed = access & self._handled
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        self._add(_PATH_BENEATH, _PathBeneathAttr(access=allowed, parent=descriptor))

    def allow_port(self, port: int, access: int) -> None:
        """Allow to bind or to connect to a TCP port; port 0 is any free one. Raises OSError."""
        if self._abi >= ABI_TCP:
            self._add(_NET_PORT, _NetPortAttr(access=access, port=port))

    def restrict(self) -> None:
        """Put it in force for this thread and all that it starts, for good. Needs no_new_privs. Raises OSError."""
        try:
            _syscall(_RESTRICT_SELF, ctypes.c_int(self._descriptor), ctypes.c_uint32(0))
        finally:
            os.close(self._descriptor)

    def _add(self, kind: int, attr: ctypes.Structure) -> None:
        _syscall(
            _ADD_RULE, ctypes.c_int(self._descriptor), ctypes.c_int(kind), ctypes.byref(attr), ctypes.c_uint32(0)
        )


def _syscall(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
