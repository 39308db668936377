"""A seccomp filter by ctypes: system calls that no training needs answer EPERM, here and in all that is started.

What is denied is a list, not what is allowed: libraries that compute change what they call from release to release. The
numbers are those of the kernel's tables for x86_64 and for aarch64.
"""

import ctypes
import errno
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Network = Literal["none", "loopback", "cuda"]

_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# What reaches other processes, the kernel's inner parts, or what is not the process's own. Number on x86_64, aarch64.
_DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "kcmp": (312, 272), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # memory and queues that every process of the user shares
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # owners, permissions and times of files, which Landlock does not watch
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "file_setattr": (469, 469),
    # ways around a filter of calls
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # the kernel's inner parts
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58),
    # the machine's clock and names
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162),
    # other views of files and processes
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
}
# Leaving the group that ends with the trainer. Ranks lead sessions of their own, and are tethered instead.
_LEAVING: Final = {"setsid": (112, 157), "setpgid": (109, 154)}
_TALKING: Final = {
    "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
}
_SOCKET: Final = (41, 198)
_SOCKETPAIR: Final = (53, 199)
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_PRLIMIT64: Final = (302, 261)

_NEW_NAMESPACES: Final = 0x7E020000  # the flags CLONE_NEW* of clone
_TYPE: Final = 0xF  # of a socket, without flags
_X32: Final = 0x40000000  # the other numbering of x86_64

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

_PR_SET_SECCOMP: Final = 22
_PR_GET_SECCOMP: Final = 21
_MODE_FILTER: Final = 2


@dataclass(frozen=True)
class _Instruction:
    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_supported() -> bool:
    """Whether this kernel filters, and this machine's numbers are known."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0)


def install(network: Network) -> None:
    """Filter this thread's calls and those of all that it starts, for good. Needs no_new_privs. Raises OSError.

    `none`: no socket but pairs. `loopback`: TCP too, which Landlock holds to some ports. `cuda`: Unix sockets besides.
    """
    if not is_supported():
        raise OSError(f"no seccomp filter on {sys.platform} {platform.machine()}")
    code = b"".join(instruction.packed() for instruction in _program(network))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def _program(network: Network) -> Iterator[_Instruction]:
    architecture, column = _ARCHITECTURES[platform.machine()]
    denied = [*_DENIED.values(), *(() if network != "none" else (*_LEAVING.values(), *_TALKING.values()))]
    yield _Instruction(_LOAD, _ARCHITECTURE_AT)
    yield _Instruction(_EQUAL, architecture, 1, 0)
    yield _refuse(errno.EPERM)
    yield _Instruction(_LOAD, _NUMBER_AT)
    if not column:
        yield _Instruction(_AT_LEAST, _X32, 0, 1)
        yield _refuse(errno.EPERM)
    for numbers in denied:
        number = numbers[column]
        if number is not None:
            yield from _when(number, [_refuse(errno.EPERM)])
    # Its flags lie in memory, where no filter reads; told that there is no such call, libraries take clone.
    yield from _when(_CLONE3[column], [_refuse(errno.ENOSYS)])
    yield from _when(_CLONE[column], [
        _argument(0), _Instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _refuse(errno.EPERM), _allow(),
    ])
    # Limits of other processes of the same user.
    yield from _when(_PRLIMIT64[column], [_argument(0), *_allow_only([0])])
    # A pair of another type could be sent to any address.
    yield from _when(_SOCKETPAIR[column], [
        _argument(1), _Instruction(_AND, _TYPE), *_allow_only([socket.SOCK_STREAM]),
    ])
    yield from _when(_SOCKET[column], list(_sockets(network)))
    yield _allow()


def _sockets(network: Network) -> Iterator[_Instruction]:
    """TCP, and the kernel's list of interfaces, which finding the loopback takes."""
    if network == "none":
        yield _refuse(errno.EPERM)
        return
    unix = [socket.AF_UNIX] if network == "cuda" else []
    yield _argument(0)
    for domain in (socket.AF_NETLINK, *unix):
        yield from _when(domain, [_allow()])
    yield _Instruction(_EQUAL, socket.AF_INET, 2, 0)
    yield _Instruction(_EQUAL, socket.AF_INET6, 1, 0)
    yield _refuse(errno.EPERM)
    yield _argument(1)
    yield _Instruction(_AND, _TYPE)
    yield from _allow_only([socket.SOCK_STREAM])


def _when(value: int, then: list[_Instruction]) -> Iterator[_Instruction]:
    """Instructions for one value of what is loaded; they must not run past their end."""
    yield _Instruction(_EQUAL, value, 0, len(then))
    yield from then


def _allow_only(values: Iterable[int]) -> Iterator[_Instruction]:
    for value in values:
        yield from _when(value, [_allow()])
    yield _refuse(errno.EPERM)


def _argument(place: int) -> _Instruction:
    """The lower half of an argument: all of it, of those that are asked for here."""
    return _Instruction(_LOAD, _ARGUMENTS_AT + 8 * place)


def _refuse(number: int) -> _Instruction:
    return _Instruction(_RETURN, _ERRNO | number)


def _allow() -> _Instruction:
    return _Instruction(_RETURN, _ALLOW)
