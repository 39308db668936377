"""How often the kernel of this machine has ended a process for want of memory."""

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def num_memory_kills() -> int:
    """Since the machine started, in whatever container; 0 where nobody tells."""
    try:
        lines = VMSTAT.read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
