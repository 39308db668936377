"""How a teacher reads raw samples."""

from stillhouse.contract.failures import InputShapeMismatchError, UnusableArrayError
from stillhouse.contract.spec import Normalization
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.data import Dataset


def reading(normalization: Normalization | None, dataset: Dataset, param: str) -> Preprocessing:
    """The data's preprocessing with the teacher's own normalisation, where it has one."""
    try:
        return dataset.preprocess_with(normalization)
    except (ValueError, UnusableArrayError) as error:
        raise InputShapeMismatchError(
            f"the teacher's normalization does not fit the data: {error}", param=f"{param}/normalization"
        ) from error
