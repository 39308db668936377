"""Where the code is, for the fresh processes that the engine starts."""

import os
from pathlib import Path

import worker


def code_folder() -> str:
    """The folder to import from: what the sandbox names, which holds nothing else, or where this code came from."""
    return os.environ.get("CODE_FOLDER", str(Path(worker.__path__[0]).parent))
