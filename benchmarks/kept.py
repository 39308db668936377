"""Results kept on disk as they come, so that an interrupted benchmark goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

WORK: Final = Path(__file__).parent / "work"  # not for git
Result = dict[str, Any]


def artifact_id(file: Path) -> str:
    """An id that says what is in the file, so that a spec with such ids says all that a result follows from."""
    with file.open("rb") as content:
        return f"art_{hashlib.file_digest(content, 'sha256').hexdigest()[:20]}"


def by_artifact(*files: Path) -> dict[str, Path]:
    """The files by their ids."""
    return {artifact_id(file): file for file in files}


class Kept:
    """A folder of results by their specs. The code is not part of the name: remove the folder when it changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def result(self, spec: BaseModel, make: Callable[[Path], Mapping[str, Any]]) -> Result:
        """What `make` returned for this spec, now or earlier. It is told a path without suffix for files of its own."""
        path = self._path(spec)
        if not path.is_file():
            made = json.dumps(make(path.with_suffix("")))
            partial = path.with_suffix(".partial")
            partial.write_text(made)
            partial.replace(path)
        result: Result = json.loads(path.read_text())
        return result

    def file(self, spec: BaseModel, suffix: str) -> Path:
        """A file that `make` left beside the result of this spec."""
        return self._path(spec).with_suffix(suffix)

    def _path(self, spec: BaseModel) -> Path:
        text = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
