"""docs/augmentation.md is what the code says."""

import pytest

from scripts.augmentation_page import PAGE, page, section
from stillhouse.contract.spec import Erasing, Flip, Rotate
from stillhouse.contract.spec.base import Section


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize(
    ("transform", "row"),
    [
        (Rotate, "| `degrees` | > 0, ≤ 180 | `15` | Largest angle to either side, in degrees. |"),
        (Flip, "| `vertical` | `true` or `false` | `false` | Mirror top to bottom. |"),
        (Erasing, "| `max_area` | > 0, ≤ 1 | `0.3333` | Largest area of the rectangle, as a share of the image's. |"),
    ],
)
def test_a_field_is_told_with_bounds_and_default(transform: type[Section], row: str) -> None:
    assert row in section(transform).splitlines()
    assert section(transform) in page()
