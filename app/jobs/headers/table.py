"""The header row of a CSV file."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence

from app.artifacts.inspection.facts import CsvFacts
from app.jobs.headers.stored import MAX_LISTED, check_known
from stillhouse.contract.failures import UnusableColumnError
from stillhouse.contract.spec import CsvData, CsvSplit


def check_table(data: CsvData, split: CsvSplit, pointer: str, facts: CsvFacts) -> None:
    """Raise what fits when the header row does not have the columns that the spec names."""
    names = next(csv.reader([facts.header], delimiter=data.delimiter), [])
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UnusableColumnError(
            f"Two columns are called `{repeated[0]}`; rename one of them.", param=f"{pointer}/artifact"
        )
    for field, role in _table_roles(data, split, pointer):
        check_known(role, names, field)
    others = {*data.ignore, *(split.labels or []), *split.soft_columns}
    if not set(names) - others:
        raise UnusableColumnError(
            f"No column is left for the inputs: the header row has {', '.join(names[:MAX_LISTED])}.", param=pointer
        )


def _table_roles(data: CsvData, split: CsvSplit, pointer: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Where the spec names columns, and which; those of inputs are known from the training split."""
    yield f"{pointer}/labels", split.labels or []
    yield f"{pointer}/soft_labels", split.soft_columns
    if split is data.train:
        yield "/data/numeric", data.numeric
        yield "/data/categorical", data.categorical
        yield "/data/ignore", data.ignore
