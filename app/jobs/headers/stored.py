"""What admission looks at: rows of artifacts, shapes that may be known only in part, names that may be misspelt."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from app.jobs.spec_reading import nearest_name
from stillhouse.contract.failures import UnknownColumnError
from stillhouse.contract.spec import ImageFit

INTEGERS: Final = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBERS: Final = INTEGERS | {"float16", "float32", "float64", "bool"}
MAX_LISTED: Final = 20

# Of one input, as models see it: [channels, height, width] or [columns]. None for what no header tells.
Shape = list[int | None] | None


class Stored(Protocol):
    """An artifact's row, as far as admission looks."""

    @property
    def kind(self) -> str:
        """What it is for."""

    @property
    def format(self) -> str:
        """How it is written."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its header told at upload."""


def agree(one: Sequence[int | None] | None, other: Sequence[int | None] | None) -> bool:
    """Whether two shapes may be the same, as far as they are known."""
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        mine is None or its is None or mine == its for mine, its in zip(one, other, strict=True)
    )


def in_words(shape: Sequence[int | None] | None) -> str:
    """A shape for messages: `[3, ?, ?]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape or []) + "]"


def shape_of_images(fit: ImageFit) -> Shape:
    """Shape of an encoded image once it is decoded, as far as the spec tells it."""
    height, width = fit.size or (None, None)
    return [fit.channels, height, width]


def hint(name: str, known: Iterable[str]) -> str:
    """Which name was meant, else which there are."""
    nearest = nearest_name(name, known)
    return f"did you mean `{nearest}`?" if nearest else f"it has {', '.join(sorted(known)[:MAX_LISTED])}."


def check_known(names: Sequence[str], columns: Iterable[str], pointer: str) -> None:
    """Raise UnknownColumnError for a name that no column has."""
    known = set(columns)
    for name in names:
        if name not in known:
            raise UnknownColumnError(f"There is no column `{name}`; {hint(name, known)}", param=pointer)
