"""Teachers that come as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.spec import CheckpointTeacher
from stillhouse.models import Checkpoint, load_checkpoint
from worker.engine.architectures import check_answers, check_input_shape, place
from worker.engine.data import Dataset
from worker.engine.teachers.reading import reading
from worker.engine.teachers.teacher import Gives, NetworkTeacher


def load_checkpoint_teacher(
    spec: CheckpointTeacher, inputs: Mapping[str, Path], dataset: Dataset, *, num_classes: int | None, device: str,
    param: str, is_classification: bool,
) -> NetworkTeacher:
    """The teacher of the checkpoint. Raises what fits when its weights or its inputs do not."""
    found = _load(spec, inputs, dataset, num_classes, param)
    check_input_shape(found.architecture, dataset.input_shape, f"{param}/architecture/input_shape")
    check_answers(found.architecture, f"{param}/architecture")
    model = place(found.model, device).requires_grad_(requires_grad=False)
    read = reading(spec.normalization or found.normalization, dataset, param)
    gives: Gives = "logits" if is_classification else "values"
    return NetworkTeacher(model, found.architecture, read, gives, remarks=found.remarks)


def _load(
    spec: CheckpointTeacher, inputs: Mapping[str, Path], dataset: Dataset, num_classes: int | None, param: str
) -> Checkpoint:
    try:
        return load_checkpoint(
            inputs[spec.artifact], spec.architecture, input_shape=dataset.input_shape, num_classes=num_classes
        )
    except StillhouseError as error:
        error.param = error.param or f"{param}/{'architecture' if spec.architecture else 'artifact'}"
        raise
