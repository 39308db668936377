"""What the worker's children may know of its environment: where programs and devices are, and no credential."""

import ctypes
import os
import resource
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_KEPT: Final = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "PYTHON*", "VIRTUAL_ENV", "CUDA_*", "NVIDIA_*", "NCCL_*", "HIP_*", "ROCR_*", "OMP_*", "KMP_*", "MKL_*",
    "OPENBLAS_*", "TORCH_*", "PYTORCH_*", "TRITON_*", "MALLOC_*", "GLIBC_TUNABLES",
)
_SET: Final = {
    # Threads that spin while they wait steal the cores of the trainer beside them.
    "OMP_WAIT_POLICY": "passive",
    # It would start threads when NumPy is imported, and a forkserver must have one thread when it forks.
    "OPENBLAS_NUM_THREADS": "1",
    # Models come by name and config; nothing that runs here has anything to fetch.
    "HF_HUB_OFFLINE": "1",
    # ONNX Runtime writes files and starts a thread otherwise.
    "ORT_DISABLE_TELEMETRY": "1",
}


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that a trainer may see, with what it needs."""
    kept = {name: value for name, value in environment.items() if any(fnmatchcase(name, kept) for kept in _KEPT)}
    return kept | _SET


def hide() -> None:
    """Close this process's own memory and first environment, as /proc shows them, to others of the same user.

    Without effect where trainers run as root.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_many_files() -> None:
    """Let the worker open as many files as it may: each staged file is held open, and soft labels are many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def scrub() -> None:
    """Forget everything else for good: every process that starts from here on inherits nothing to steal.

    Call while one thread runs, after the settings were read.
    """
    kept = scrubbed(os.environ)
    for name in set(os.environ) - set(kept):
        del os.environ[name]
    os.environ.update(kept)
