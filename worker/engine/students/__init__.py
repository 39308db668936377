"""What a teacher is distilled into."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from stillhouse.contract.spec import Architecture, DerivedStudent, JobSpec, Layers
from worker.engine.architectures import blaming, fit
from worker.engine.course import Learner
from worker.engine.data import Dataset
from worker.engine.students.derived import Derived
from worker.engine.students.initial import load_initial_weights
from worker.engine.students.pruning import derive_narrower
from worker.engine.students.shortening import derive_shorter

NUM_EXAMPLES = 2

__all__ = ["Derived", "begin_student", "derive_student", "fit_student", "load_initial_weights"]


def derive_student(
    student: DerivedStudent, teacher_model: nn.Module, teacher_architecture: Architecture, example_input: Tensor
) -> Derived:
    """The student that the spec makes from the teacher: the same every time, on the CPU.

    `example_input` is a few normalised inputs (N, *input_shape), N at least 1. Which architecture comes out depends on
    the teacher's architecture alone, so a teacher that is still to be trained will do to ask for it. Raises
    UnderivableStudentError.
    """
    if isinstance(student, Layers):
        return derive_shorter(student, teacher_model, teacher_architecture, example_input)
    return derive_narrower(student, teacher_model, teacher_architecture, example_input)


def fit_student(
    spec: JobSpec, dataset: Dataset, num_classes: int, teacher_model: nn.Module | None,
    teacher_architecture: Architecture | None,
) -> Architecture:
    """The student's complete architecture. Raises what fits when it cannot be built, derived or read the data."""
    student = spec.student
    if not isinstance(student, DerivedStudent):
        return fit(
            student, input_shape=dataset.input_shape, num_classes=num_classes, param="/student",
            outputs=spec.task.outputs,
        )
    return _derive(student, dataset, teacher_model, teacher_architecture).architecture


def begin_student(
    spec: JobSpec, inputs: Mapping[str, Path], dataset: Dataset, architecture: Architecture,
    teacher_model: nn.Module | None, teacher_architecture: Architecture | None,
) -> tuple[Learner, Sequence[str]]:
    """The student with the weights that it begins with, and remarks for the job's log.

    `teacher_model` is the teacher as it will teach: its weights are what a derived student begins with.
    """
    if isinstance(spec.student, DerivedStudent):
        derived = _derive(spec.student, dataset, teacher_model, teacher_architecture)
        if derived.weights is not None:
            return Learner(derived.architecture, derived.weights), derived.remarks
    if spec.initial_weights is not None:
        loaded = load_initial_weights(inputs[spec.initial_weights], architecture)
        return Learner(architecture, loaded.tensors), loaded.remarks
    return Learner(architecture), ()


def _derive(
    student: DerivedStudent, dataset: Dataset, teacher_model: nn.Module | None,
    teacher_architecture: Architecture | None,
) -> Derived:
    assert teacher_model is not None  # noqa: S101 - the spec refuses teachers that cannot be taken apart
    assert teacher_architecture is not None  # noqa: S101 - as above
    example = dataset.preprocessing.normalize(dataset.train.samples.arranged[:NUM_EXAMPLES])
    with blaming("/student"):
        return derive_student(student, teacher_model, teacher_architecture, example)
