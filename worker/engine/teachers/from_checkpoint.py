"""Teachers that come as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from stillhouse.contract.failures import InputShapeMismatchError, StillhouseError, UnusableArrayError
from stillhouse.contract.spec import CheckpointTeacher, Normalization
from stillhouse.models import Checkpoint, load_checkpoint
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.architectures import check_answers, check_input_shape, place
from worker.engine.data import Dataset
from worker.engine.teachers.teacher import Teacher


def load_teacher(
    spec: CheckpointTeacher, inputs: Mapping[str, Path], dataset: Dataset, *, num_classes: int | None, device: str
) -> Teacher:
    """The teacher of the checkpoint. Raises what fits when its weights or its inputs do not."""
    found = _load(spec, inputs, dataset, num_classes)
    check_input_shape(found.architecture, dataset.input_shape, "/teacher/architecture/input_shape")
    check_answers(found.architecture, "/teacher/architecture")
    model = place(found.model, device).requires_grad_(requires_grad=False)
    return Teacher(model, found.architecture, _preprocessing(spec.normalization or found.normalization, dataset))


def _load(
    spec: CheckpointTeacher, inputs: Mapping[str, Path], dataset: Dataset, num_classes: int | None
) -> Checkpoint:
    try:
        return load_checkpoint(
            inputs[spec.artifact], spec.architecture, input_shape=dataset.input_shape, num_classes=num_classes
        )
    except StillhouseError as error:
        error.param = error.param or ("/teacher/architecture" if spec.architecture else "/teacher/artifact")
        raise


def _preprocessing(normalization: Normalization | None, dataset: Dataset) -> Preprocessing:
    try:
        return dataset.preprocess_with(normalization)
    except (ValueError, UnusableArrayError) as error:
        raise InputShapeMismatchError(
            f"the teacher's normalization does not fit the data: {error}", param="/teacher/normalization"
        ) from error
