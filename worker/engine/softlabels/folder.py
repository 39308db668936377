"""A plain folder as the store of soft labels: for the engine alone, without a service around it."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from stillhouse.contract.lending import Lent, Wanted
from worker.engine.ranks import Ranks
from worker.engine.softlabels.shards import SUFFIX


class LabelFolder:
    """One engine at a time: it makes whatever is not there."""

    def __init__(self, folder: Path, inputs: Mapping[str, Path], owner: str = "") -> None:
        self.owner = owner
        self._folder, self._inputs = folder, inputs
        self._digests: dict[str, str] = {}

    def digest(self, artifact_id: str) -> str:
        """The sha256 of an input of the job."""
        if artifact_id not in self._digests:
            with self._inputs[artifact_id].open("rb") as file:
                self._digests[artifact_id] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[artifact_id]

    def ask(self, wanted: Wanted) -> Lent:
        """What is there; of the rest, as many as asked for."""
        paths = {key: self._path(key) for key in wanted.keys}
        ready = {key: path for key, path in paths.items() if path.is_file()}
        return Lent(ready=ready, to_make=[key for key in paths if key not in ready][: wanted.num_to_make])

    def put(self, key: str, file: Path) -> Path:
        """Move the shard in; it appears there whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        if file != path:
            partial = path.with_suffix(".partial")
            shutil.move(file, partial)
            with partial.open("rb") as moved:
                os.fsync(moved.fileno())
            partial.replace(path)
        return path

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"


class RankFolder(LabelFolder):
    """A folder that several processes share: each makes its part of what is missing, and waits for the others'."""

    def __init__(self, folder: Path, inputs: Mapping[str, Path], ranks: Ranks) -> None:
        super().__init__(folder, inputs)
        self._ranks = ranks

    def ask(self, wanted: Wanted) -> Lent:
        """What is there; of the rest, those that fall to this process by their keys."""
        lent = super().ask(Wanted(keys=wanted.keys, num_to_make=len(wanted.keys)))
        own = [key for key in lent.to_make if int(key, 16) % self._ranks.size == self._ranks.rank]
        return Lent(ready=lent.ready, to_make=own[: wanted.num_to_make])
