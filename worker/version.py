"""Which code this process runs, so that a trainer and its supervisor can find out that theirs differ."""

import hashlib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def digest_of_code(root: Path) -> str:
    """Digest of all that a trainer may run: the Python files of `stillhouse`, `worker` and `app` under the root."""
    digest = hashlib.sha256()
    for path in sorted(path for package in ("stillhouse", "worker", "app") for path in (root / package).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


# Read once, when the process starts: what it has imported does not change when the files do.
CODE_VERSION: Final = digest_of_code(ROOT)
