"""`make fuzz`: look for bytes that a parser of ours does not foresee. Coverage-guided, each target in its own process.

    python -m tests.fuzz.run [--seconds 120] [--merge] [TARGET ...]

A finding ends its target, is written to .fuzz/TARGET.findings and told with its traceback; the exit status is 1 then.
Put its bytes into tests/fuzz/corpus/TARGET with the change that mends it. `--merge` distils what was reached into that
corpus: the smallest set of files that reaches as much.
"""

import argparse
import hashlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
WORK: Final = ROOT / ".fuzz"
_MOST_BYTES: Final = 8192
_MOST_MIB: Final = 2048
# One input that takes longer is a finding.
_INPUT_SECONDS: Final = 10


def main() -> int:
    """Fuzz each target; the exit status."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - in a child it is to be imported by `_fuzz`

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when left out")
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("--merge", action="store_true", help="distil what is found into the corpus")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    failing = [name for name in chosen.targets or TARGETS if not _fuzzed(name, chosen.seconds, merge=chosen.merge)]
    print(f"findings in {', '.join(failing)}" if failing else "no finding")
    return 1 if failing else 0


def _fuzzed(name: str, seconds: int, *, merge: bool) -> bool:
    """Whether nothing was found."""
    found, corpus = WORK / name, CORPUS / name
    for folder in (found, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"--- {name}: {seconds} s", flush=True)
    is_clean = _child(name, f"-max_total_time={seconds}", found, corpus)
    if is_clean and merge:
        # What is there already stays; the fewest files are added that reach the rest.
        _child(name, "-set_cover_merge=1", "-use_counters=0", corpus, found)
    return is_clean


def _child(name: str, *options: str | Path) -> bool:
    command = [sys.executable, "-m", "tests.fuzz.run", "--one", name, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def _fuzz(name: str, options: list[str]) -> None:
    """Fuzz one target until libFuzzer ends this process."""
    import atheris  # noqa: PLC0415 - only `make fuzz` needs it, and installs it

    with atheris.instrument_imports(include=["app", "stillhouse", "worker", "zipfile", "tarfile"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    findings = WORK / f"{name}.findings"
    findings.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_len={_MOST_BYTES}", f"-rss_limit_mb={_MOST_MIB}", f"-timeout={_INPUT_SECONDS}",
        f"-artifact_prefix={findings}/",  # of what takes too long or too much; exceptions are kept by us
    ]
    # libFuzzer starts itself again to merge, by a shell.
    itself = shlex.join([sys.executable, "-m", "tests.fuzz.run", "--one", name])
    atheris.Setup([itself, *limits, *options], partial(_tried, TARGETS[name], findings))
    atheris.Fuzz()


def _tried(target: Callable[[bytes], None], findings: Path, content: bytes) -> None:
    try:
        target(content)
    except BaseException:
        (findings / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
        raise


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main())
