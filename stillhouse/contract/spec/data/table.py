"""Tables of numbers and categories as text: CSV."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.data.base import BaseData, FileSplit, Name, Names, SoftlyLabelled, refuse_layout

Columns = Annotated[list[Name], Field(max_length=65_536)]
# As people and their tools write a cell that has no value.
MISSING_VALUES = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


class CsvSplit(FileSplit, SoftlyLabelled):
    """One split as a CSV file with a header row, in UTF-8."""

    labels: Names | None = Field(
        default=["label"],
        description="Column of one class per sample, as a whole number or as text; for several labels, a regression or "
        "an embedding the names of several columns. Null for unlabelled data.",
    )

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None

    def unlabelled(self) -> Self:
        """The same: a label that nobody reads is still no input."""
        return self


class CsvData(BaseData):
    """CSV files. Every column that is no label is an input: standardised if numeric, else one-hot.

    Means, deviations and categories are those of the training split; they go into the bundle with the model.
    """

    kind: Literal["csv"] = "csv"
    train: CsvSplit = Field(description="Samples to train on.")
    validation: CsvSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: CsvSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")
    numeric: Columns = Field(default=[], description="Columns to read as numbers, whatever they look like.")
    categorical: Columns = Field(
        default=[], description="Columns to read as categories, whatever they look like. Without being named, a column "
        "is numeric if all its values are numbers, else categorical."
    )
    ignore: Columns = Field(default=[], description="Columns to leave out, such as identifiers.")
    missing: Literal["refuse", "mean", "median", "zero"] = Field(
        default="refuse",
        description="What a missing value becomes: `refuse` tells where it is; `mean`, `median` (both of the training "
        "split) and `zero` are for numeric columns, and then a missing category is like one that was never seen: all "
        "zeros.",
    )
    missing_values: Annotated[list[str], Field(max_length=64)] = Field(
        default=MISSING_VALUES, description="Texts that stand for `no value`, spaces around them left out."
    )
    max_categories: int = Field(
        default=256, ge=1, le=65_536, description="Most categories that a column may have: more look like a free text."
    )
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="What stands between two cells.")

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> Self:
        refuse_layout(self)
        roles = {"numeric": self.numeric, "categorical": self.categorical, "ignore": self.ignore}
        seen: dict[str, str] = {}
        for role, names in roles.items():
            for name in names:
                if name in seen:
                    raise ValueError(f"column {name!r} is in {seen[name]} and in {role}; name it once")
                seen[name] = role
        both = next((name for name in self.train.labels or [] if name in seen), None)
        if both is not None:
            raise ValueError(f"column {both!r} is in {seen[both]} and is the label; name it once")
        return self
