"""Write docs/augmentation.md from the spec's classes. Run by `make docs`; a test compares the page with the code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from stillhouse.contract.spec import Transform
from stillhouse.contract.spec.base import Section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "augmentation.md"

HEAD = """\
# Augmentation

<!-- Written by `make docs` from stillhouse/contract/spec/augmentation.py: change it there. -->

`training.augmentation.transforms` is a list of random changes that are made to each image of the training split, in
that order, on the device, anew for every epoch. The teacher labels what the student sees. Validation and test splits
are never changed.

```json
{"transforms": [{"kind": "crop", "padding": 4}, {"kind": "flip"}, {"kind": "cutmix"}]}
```
"""

FOOT = """\
## What can be relied on

- A draw is a function of the augmentation's seed, the sample, the view (the epoch, or one of a soft-label store's
  views) and the transform's place in the list. Neither the batch nor its order nor the job's own seed plays a part.
  So jobs with the same augmentation see the same views, and can share the teacher's answers to them.
- Draws are the same on every machine. Pixels are the same, bit for bit, on one kind of device with one version of the
  libraries, whatever batch a sample is in and however many threads there are. On CUDA this was never tried.
- Images keep their size and their scale: bytes stay within 0 to 255. `shift`, `flip`, `crop`, `erasing` and `cutmix`
  only copy pixels; everything else makes float32 values, without rounding.
- What comes in from outside of an image, or is erased, is the raw value 0, before the normalisation.
- `jitter`, `noise` and `random_augment` take bytes to lie between 0 and 255, and floats between the smallest and the
  largest value of the training split; what would go beyond is cut.
- `mixup` and `cutmix` come last, once each. The partner is any sample of the training split, the sample itself
  included; it is changed by its own draws of the same view, then mixed. The box of `cutmix` has its centre on any
  pixel and ends at the edge, and labels are mixed by the area that is left. Where both stand, each sample takes one
  of the two, by equal chance.
- A share of Beta(alpha, alpha) comes from two draws, without rejection: from a Student's t by Bailey's polar method
  (1994).

Refused: a shift or a padding as long as a side of the images, saturation or hue of images that do not have three
channels, anything at all for the rows of a table.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(transform) for transform in get_args(get_args(Transform)[0])), FOOT])


def section(transform: type[Section]) -> str:
    """What is said of one transform."""
    schema = transform.model_json_schema()
    fields = {name: field for name, field in schema["properties"].items() if name != "kind"}
    lines = [f"## `{schema['properties']['kind']['const']}`", "", schema["description"], ""]
    lines += ["| field | values | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {_values(field)} | `{_default(field['default'])}` | {field['description']} |"
        for name, field in fields.items()
    ]
    return "\n".join([*lines, ""])


def _values(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    return "`true` or `false`" if field["type"] == "boolean" else ", ".join(_bounds(field))


def _bounds(field: dict[str, Any]) -> Iterator[str]:
    for sign, bound in (("≥", "minimum"), (">", "exclusiveMinimum"), ("≤", "maximum"), ("<", "exclusiveMaximum")):
        if bound in field:
            yield f"{sign} {field[bound]:g}"


def _default(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
