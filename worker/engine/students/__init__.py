"""What a teacher is distilled into."""

from torch import Tensor, nn

from stillhouse.contract.spec import Architecture, DerivedStudent, JobSpec, Layers
from worker.engine.architectures import blaming, check_batch
from worker.engine.data import Dataset
from worker.engine.students.derived import Derived
from worker.engine.students.families import fit_named
from worker.engine.students.initial import load_initial_weights
from worker.engine.students.pruning import derive_narrower
from worker.engine.students.shortening import derive_shorter

NUM_EXAMPLES = 2

__all__ = ["Derived", "derive_student", "fit_student", "load_initial_weights"]


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
    spec: JobSpec, dataset: Dataset, num_classes: int, teacher_model: nn.Module, teacher_architecture: Architecture
) -> Derived:
    """The student that the spec asks for. Raises what fits when it cannot be built, derived or trained on the data."""
    student = spec.student
    if not isinstance(student, DerivedStudent):
        return Derived(fit_named(student, spec.training, dataset, num_classes), None, [])
    example = dataset.preprocessing.normalize(dataset.train.samples.arranged[:NUM_EXAMPLES])
    with blaming("/student"):
        derived = derive_student(student, teacher_model, teacher_architecture, example)
    check_batch(derived.architecture, spec.training, len(dataset.train.ids), "/training")
    return derived
