"""`make audit`: known holes in what is installed, and secrets in the tree. Fails too where it could not look."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What the scan is to look at, beside what git tracks.
SCANNED: list[str] = []


def main() -> int:
    """Run both; the exit status is 1 for a finding and 2 where nothing could be looked up."""
    return max(scan_secrets(), _holes())


def scan_secrets() -> int:
    """Look for secrets in what git tracks; the exit status."""
    done = _run("detect_secrets", "scan", *SCANNED)
    if done.returncode:
        return _tell(2, f"secrets: the scan failed: {done.stderr.strip()}")
    return judge_secrets(json.loads(done.stdout)["results"])


def judge_secrets(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """Tell what looks like a secret; the exit status."""
    places = [f"  {path}:{one['line_number']} {one['type']}" for path, each in found.items() for one in each]
    if not places:
        return _tell(0, "secrets: none in the tree")
    return _tell(1, "\n".join((
        "secrets: take these out, or say `pragma: allowlist secret` on the line of one that is none:", *places,
    )))


def _holes() -> int:
    done = _run("pip_audit", "-r", "requirements.lock", "--no-deps", "--disable-pip", "--format", "json",
                "--progress-spinner", "off")
    try:
        told = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return _tell(2, f"dependencies: NOT AUDITED, the advisory database is out of reach: {reason}")
    return judge_dependencies(told)


def judge_dependencies(told: Sequence[Mapping[str, Any]]) -> int:
    """Tell which dependencies have known holes, and which nobody could look up; the exit status."""
    skipped = [each["name"] for each in told if "skip_reason" in each]
    holes = [
        f"  {each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for each in told for hole in each.get("vulns", ())
    ]
    if len(skipped) == len(told):
        return _tell(2, "dependencies: NOT AUDITED, the advisory database knows none of them or is out of reach")
    if holes:
        return _tell(1, "\n".join(("dependencies: known holes in", *holes)))
    missing = f", but {len(skipped)} NOT AUDITED: {', '.join(skipped)}" if skipped else ""
    return _tell(0, f"dependencies: no known hole in {len(told) - len(skipped)}{missing}")


def _run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )


def _tell(status: int, text: str) -> int:
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
