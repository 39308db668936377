"""Students of the built-in families."""

from stillhouse.contract.spec import Architecture, JobSpec
from worker.engine.architectures import check_batch, fit
from worker.engine.data import Dataset


def fit_student(spec: JobSpec, dataset: Dataset, num_classes: int) -> Architecture:
    """The student's complete architecture. Raises what fits when its inputs or outputs are not those of the data."""
    check_batch(spec.student, spec.training, len(dataset.train.ids), "/training")
    return fit(
        spec.student, input_shape=dataset.input_shape, num_classes=num_classes, param="/student",
        outputs=spec.task.outputs,
    )
