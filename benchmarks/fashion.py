"""Fashion-MNIST for the benchmarks: where it is, and the splits that they use.

The last 10,000 of the 60,000 training images validate, for teacher and students alike; no model learns from them.
"""

import os
from pathlib import Path
from typing import Final

from benchmarks.idx import Digits, read_digits, write_digits
from benchmarks.kept import artifact_id, by_artifact
from stillhouse.contract.spec import Augmentation, Flip, IdxData, IdxSplit, Shift

VARIABLE: Final = "FASHION_MNIST"
PACKAGED: Final = Path("/usr/share/datasets/fashion-mnist")
TEACHER: Final = Path(__file__).parent / "teachers" / "fashion.safetensors"
NUM_TRAIN, NUM_VALIDATION = 50_000, 10_000
LABEL_NAMES: Final = [
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]
# What students and control see. The teacher's own is stronger.
AUGMENTATION: Final = Augmentation(transforms=[Flip(), Shift(pixels=2)])


def fashion_folder() -> Path:
    """Where the four files are. Ends the program with what to do where they are not."""
    folder = Path(os.environ.get(VARIABLE, PACKAGED))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise SystemExit(
            f"Fashion-MNIST is not in {folder}. Install it on Debian with `apt-get install dataset-fashion-mnist`, or "
            f"put its four *-ubyte.gz files into a folder of yours and set {VARIABLE} to that folder."
        )
    return folder


def splits(num_train: int = NUM_TRAIN) -> dict[str, Digits]:
    """Of the training images the first to learn from and the last 10,000 to validate; and the test images."""
    folder = fashion_folder()
    train = read_digits(folder, "train")
    return {"train": train[:num_train], "validation": train[-NUM_VALIDATION:], "test": read_digits(folder, "t10k")}


def write_splits(folder: Path, splits: dict[str, Digits]) -> tuple[IdxData, dict[str, Path]]:
    """The splits as files in the folder: the job's data, and the files by artifact."""
    inputs: dict[str, Path] = {}
    sections = {}
    for name, digits in splits.items():
        files = write_digits(folder, name, digits)
        inputs |= by_artifact(*files.values())
        sections[name] = IdxSplit(inputs=artifact_id(files["images"]), labels=artifact_id(files["labels"]))
    return IdxData(
        train=sections["train"], validation=sections["validation"], test=sections.get("test"), label_names=LABEL_NAMES
    ), inputs
