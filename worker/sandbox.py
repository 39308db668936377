"""The trainer's sandbox: what hostile bytes can reach once they have taken the process over.

Each measure is put in force by itself and stays for good, also in all that the trainer starts. What could not be put in
force is told, never passed over: docs/security.md says what each one holds, and which test shows it.
"""

import ctypes
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from worker import landlock, seccomp
from worker.version import ROOT

Mode = Literal["required", "preferred", "off"]

# Where engine and fresh processes find the code: links to its packages. Beside them in a checkout there may be data.
CODE: Final = "CODE_FOLDER"
_PACKAGES: Final = ("stillhouse", "worker")

_GIB: Final = 1024**3
_LARGEST_FILE: Final = 64 * _GIB
_MOST_FILES: Final = 16_384
_ALL_DESCRIPTORS: Final = 2**31 - 1

_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_READABLE: Final = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/fonts", "/etc/localtime",
    "/etc/timezone", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/host.conf",
    "/etc/os-release", "/etc/mime.types", "/var/cache/fontconfig", "/sys/devices/system", "/sys/kernel/mm",
    "/sys/fs/cgroup", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/filesystems",
    "/proc/version", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/max_map_count", "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/cap_last_cap", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_local_port_range",
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Drivers ask /proc and /sys for themselves, in places that differ from release to release.
_READABLE_BY_DRIVERS: Final = ("/proc", "/sys", "/etc/nvidia", "/etc/OpenCL", "/run/nvidia-persistenced")
# gloo asks which devices are near each other.
_READABLE_BY_RANKS: Final = ("/sys/bus/pci", "/sys/devices", "/sys/class/net")
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")
_CAPABILITY_VERSION: Final = 0x20080522


@dataclass(frozen=True)
class Room:
    """What one trainer may touch besides libraries: one folder to write to, files and folders to read."""

    folder: Path
    readable: tuple[Path, ...] = ()
    device: str = "cpu"  # as in the order: several with commas between them
    descriptors: Collection[int] = (0, 1, 2)

    @property
    def has_gpu(self) -> bool:
        """Whether drivers must be reached."""
        return self.device != "cpu" and not self.device.startswith("cpu,")

    @property
    def network(self) -> seccomp.Network:
        """What several processes need to find each other; one alone needs nothing."""
        if "," not in self.device:
            return "none"
        return "cuda" if self.has_gpu else "loopback"


@dataclass
class Confinement:
    """What holds a process now, and why the rest does not."""

    in_force: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        held = f"in force: {', '.join(self.in_force) or 'nothing'}"
        lacking = "; ".join(f"{name} ({reason})" for name, reason in self.missing.items())
        return f"{held}; NOT in force: {lacking}" if lacking else held


def confine(room: Room) -> Confinement:
    """Put everything in force that this system has. Call while the process has one thread, and no hostile byte open."""
    _settle(room.folder)
    done = Confinement()
    for name, measure in _MEASURES.items():
        try:
            measure(room)
        except (OSError, AttributeError, ValueError) as error:  # no such call, file or symbol on this system
            done.missing[name] = str(error)
        else:
            done.in_force.append(name)
    _doubt(done)
    return done


def probe() -> Confinement:
    """What would be in force here, found by confining a process that ends at once. Call while one thread runs."""
    with tempfile.TemporaryDirectory() as folder:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                found = confine(Room(Path(folder), descriptors=(0, 1, 2, writing)))
                os.write(writing, json.dumps(asdict(found)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        os.waitpid(pid, 0)
    return Confinement(**json.loads(told)) if told else Confinement(missing={"all": "the probe died"})


def summary(mode: Mode) -> str:
    """One line for a log, found by a probe. Raises SystemExit where all is required and something is missing."""
    if mode == "off":
        return "sandbox: off (STILLHOUSE_SANDBOX); trainers reach whatever this user reaches"
    found = probe()
    if mode == "required" and found.missing:
        raise SystemExit(
            f"STILLHOUSE_SANDBOX is required, and this system cannot give all of it. {found}. Run the worker where it "
            f"can (docs/security.md), or set STILLHOUSE_SANDBOX=preferred to run with what there is."
        )
    return f"sandbox: {mode}; {found}"


def _settle(folder: Path) -> None:
    """A home, a place for temporary files, and links to the code, all in the one folder that can be written to."""
    home, code = folder / ".home", folder / ".code"
    for made in (home, code):
        made.mkdir(exist_ok=True)
    for package in _PACKAGES:
        if not (code / package).exists():
            (code / package).symlink_to(ROOT / package)
    for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        os.environ[variable] = str(home)
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
        os.environ[variable] = str(home / variable.lower())
    os.environ[CODE] = str(code)
    tempfile.tempdir = None  # chosen anew


def _limit(_: Room) -> None:
    # No limit of the address space: CUDA and memory-mapped data reserve far more than they use. Nor of the number of
    # processes: it counts all of the user, and holds nobody who is root.
    for kind, most in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _LARGEST_FILE), (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _close_descriptors(room: Room) -> None:
    """Let go of what the forkserver left open: one byte on its line ends it, and no trainer starts any more."""
    kept = sorted(room.descriptors)
    for before, after in zip([-1, *kept], [*kept, _ALL_DESCRIPTORS], strict=True):
        if before + 1 < after:  # closerange(0, 0) closes everything
            os.closerange(before + 1, after)


def _drop_capabilities(_: Room) -> None:
    """Root without its powers: what is closed to another user's process is closed to this one."""
    last = int(_LAST_CAPABILITY.read_text())
    if os.geteuid() == 0:
        for capability in range(last + 1):
            _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc().capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset was refused")


def _refuse_new_privileges(_: Room) -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _close_files(room: Room) -> None:
    rules = landlock.Ruleset()
    for path in map(Path, (*_PROGRAMS, *_prefixes())):
        rules.allow(path, landlock.RUN)
    own = (ROOT / package for package in _PACKAGES)
    for path in (*map(Path, _READABLE), *_library_folders(), *own, *room.readable):
        rules.allow(path, landlock.READ)
    for path in map(Path, _DEVICES):
        rules.allow(path, landlock.DEVICE)
    # Kept open: another look-up of the same name could else find another inode, which the rule does not know.
    rules.allow_opened(os.open("/proc/self", os.O_PATH | os.O_CLOEXEC), landlock.READ)
    rules.allow(room.folder, landlock.WRITE)
    if room.has_gpu:
        _open_devices(rules, shares_memory="," in room.device)
    if room.network != "none":
        for path in map(Path, _READABLE_BY_RANKS):
            rules.allow(path, landlock.READ)
        first, last = map(int, _PORTS.read_text().split())
        rules.allow_port(0, landlock.BIND_TCP)
        for port in range(first, last + 1):  # those that the kernel gives out; servers listen elsewhere
            rules.allow_port(port, landlock.CONNECT_TCP)
    rules.restrict()


def _filter_calls(room: Room) -> None:
    seccomp.install(room.network)


# In this order: the filter comes last, since it denies what the others call.
_MEASURES: Final[dict[str, Callable[[Room], None]]] = {
    "descriptors": _close_descriptors,
    "limits": _limit,
    "capabilities": _drop_capabilities,
    "no new privileges": _refuse_new_privileges,
    "files": _close_files,
    "system calls": _filter_calls,
}


def _doubt(done: Confinement) -> None:
    """Tell what an older kernel's Landlock leaves open."""
    if "files" not in done.in_force:
        done.missing["signals"] = "no Landlock"
        return
    known = landlock.abi()
    for name, needed in (
        ("truncating files", landlock.ABI_TRUNCATE), ("TCP ports", landlock.ABI_TCP),
        ("commands to devices", landlock.ABI_IOCTL), ("signals", landlock.ABI_SCOPES),
    ):
        if known >= needed:
            done.in_force.append(name)
        else:
            done.missing[name] = f"the kernel's Landlock ABI is {known}; {needed} is needed"


def _prefixes() -> Iterator[str]:
    """Where this Python is, with its packages."""
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}


def _library_folders() -> Iterator[Path]:
    """Further places of code: what may be imported, and what the loader searches; not where the worker was started."""
    searched = [*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    data = (ROOT, Path.cwd())
    for name in filter(None, searched):
        path = Path(name).absolute()
        if not any(folder == path or path in folder.parents for folder in data):
            yield path


def _open_devices(rules: landlock.Ruleset, *, shares_memory: bool) -> None:
    for path in map(Path, _READABLE_BY_DRIVERS):
        rules.allow(path, landlock.READ)
    for pattern in ("nvidia*", "nvidia-caps/*", "kfd", "dri/*", "infiniband/*"):
        for path in Path("/dev").glob(pattern):
            rules.allow(path, landlock.DEVICE)
    if shares_memory:
        rules.allow(Path("/dev/shm"), landlock.WRITE)  # noqa: S108 - NCCL's place


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} was refused")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
