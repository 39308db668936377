"""docs/objectives.md is what the code says."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from scripts.objectives_page import PAGE, kind, page, section, terms
from stillhouse.contract.spec import Kl
from stillhouse.contract.spec.term import About, BaseTerm, FeatureTerm, Linear, WarmUp


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize("term", terms(), ids=kind)
def test_every_term_has_its_section(term: type[BaseTerm]) -> None:
    said = section(term)
    assert said in page()
    assert said.startswith(f"### `{kind(term)}`\n\n{term.__doc__}\n")
    assert all(part in said for part in term.about)
    own = term.model_fields.keys() - BaseTerm.model_fields.keys() - {"kind", "temperature_ramp"}
    assert all(f"| `{field}` | " in said for field in own)


class Untold(BaseTerm):
    """A term of which `about` is missing."""


class HalfTold(BaseTerm):
    """A term of which `about` has a hole."""

    about: ClassVar[About] = About(formula="0", source="nobody", reduction="", when="never")


class Undocumented(Kl):
    __doc__ = None


@pytest.mark.parametrize("term", [Untold, HalfTold, Undocumented])
def test_a_term_that_does_not_say_what_it_is_fails(term: type[BaseTerm]) -> None:
    with pytest.raises(ValueError, match=f"{term.__name__} needs a docstring, and `about`"):
        section(term)


class Layered(FeatureTerm):
    """A term on layers, with a choice between sections and one between names."""

    about: ClassVar[About] = About(formula="0", source="nobody", reduction="none", when="never")
    compares_items: ClassVar[bool] = True

    kind: Literal["layered"] = "layered"
    ramp: Annotated[WarmUp | Linear, Field(discriminator="kind")] = Field(default=Linear(), description="A ramp.")
    side: Literal["left", "right"] = Field(default="left", description="A side.")
    power: int = Field(default=2, ge=1, le=2000, description="A power.")


def test_a_term_on_layers_is_told_with_its_pairs() -> None:
    lines, pairs = section(Layered).splitlines(), FeatureTerm.model_fields["pairs"].description
    assert "- Needs: a teacher; layers; several items per batch" in lines
    assert "- Tasks: all" in lines
    assert lines[lines.index("|---|---|---|---|") + 1:] == [
        f"| `pairs` | 1 to 16 of: {{`student`, `teacher`}} | required | {pairs} |",
        '| `ramp` | `warm_up` or `linear` | `{"start": 1.0, "end": 0.0, "kind": "linear"}` | A ramp. |',
        '| `side` | `"left"` or `"right"` | `"left"` | A side. |',
        "| `power` | integer ≥ 1, ≤ 2,000 | `2` | A power. |",
    ]


def test_a_field_is_told_with_bounds_and_default() -> None:
    row = "| `temperature` | > 0, ≤ 1,000 | `2.0` | T: above 1 it softens both distributions. |"
    assert row in section(Kl).splitlines()
