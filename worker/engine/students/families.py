"""Students by name."""

from stillhouse.contract.spec import Architecture, Training
from worker.engine.architectures import check_batch, fit
from worker.engine.data import Dataset


def fit_named(
    architecture: Architecture, training: Training, dataset: Dataset, num_classes: int, *, outputs: str
) -> Architecture:
    """The student's complete architecture. Raises what fits when its inputs or outputs are not those of the data."""
    fitted = fit(
        architecture, input_shape=dataset.input_shape, num_classes=num_classes, param="/student", outputs=outputs
    )
    check_batch(fitted, training, len(dataset.train.ids), "/training")
    return fitted
