"""What a spec and the headers of its artifacts can tell before anything runs.

Preflight, on the worker, checks again with the data itself; what is wrong here would only waste a place in the queue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.artifacts.inspection.facts import SafetensorsFacts
from app.jobs.headers import Shape, Stored, agree, check_data, in_words
from stillhouse.contract.failures import (
    InputShapeMismatchError,
    InvalidSpecError,
    OutputWidthMismatchError,
    UnknownArchitectureError,
    UnknownArtifactError,
    UnusableArrayError,
    WrongArtifactKindError,
)
from stillhouse.contract.spec import Architecture, CheckpointTeacher, JobSpec, Normalization

# Tasks that take only tables, or only images; others take both.
_TAKES_TABLES = {"tabular_classification": True, "image_classification": False}


@dataclass(frozen=True)
class _Network:
    """An architecture of the spec, and where the spec names it."""

    pointer: str
    architecture: Architecture

    def field(self, name: str) -> str:
        """Pointer of a field; a checkpoint that tells its own architecture is to blame as a whole."""
        return self.pointer if self.pointer == "/teacher/artifact" else f"{self.pointer}/{name}"


def check(spec: JobSpec, stored: Mapping[str, Stored]) -> None:
    """Raise the failure that names what cannot work. `stored` holds the owner's artifacts by id."""
    for pointer, artifact_id in spec.artifacts().items():
        _check_artifact(spec, pointer, artifact_id, stored)
    shape = check_data(spec, stored)
    networks = list(_networks(spec, stored))
    for network in networks:
        _check_input(network, shape)
    _check_widths(spec, networks)
    _check_task(spec, shape)
    _check_normalizations(spec, shape)


def _check_artifact(spec: JobSpec, pointer: str, artifact_id: str, stored: Mapping[str, Stored]) -> None:
    artifact = stored.get(artifact_id)
    if artifact is None:
        raise UnknownArtifactError(
            f"No artifact of yours has the id {artifact_id}; upload the file first.", param=pointer
        )
    is_teacher = pointer == "/teacher/artifact"
    wanted = ("teacher", "safetensors") if is_teacher else ("data", spec.data.kind)
    if (artifact.kind, artifact.format) != wanted:
        raise WrongArtifactKindError(
            f"{artifact_id} is a {artifact.kind} in format {artifact.format}; this field needs a {wanted[0]} in "
            f"format {wanted[1]}.", param=pointer,
        )


def _networks(spec: JobSpec, stored: Mapping[str, Stored]) -> Iterator[_Network]:
    yield _teacher(spec, stored)
    yield _Network("/student", spec.student)


def _teacher(spec: JobSpec, stored: Mapping[str, Stored]) -> _Network:
    if spec.teacher.architecture is not None:
        return _Network("/teacher/architecture", spec.teacher.architecture)
    facts = SafetensorsFacts.model_validate(stored[spec.teacher.artifact].facts)
    if facts.architecture is None:
        why = f" ({facts.architecture_problem})" if facts.architecture_problem else ""
        raise UnknownArchitectureError(
            f"The checkpoint does not tell its architecture{why}; give teacher.architecture.",
            param="/teacher/architecture",
        )
    return _Network("/teacher/artifact", facts.architecture)


def _check_input(network: _Network, shape: Shape) -> None:
    architecture = network.architecture
    if architecture.input_shape is not None and not agree(architecture.input_shape, shape):
        raise InputShapeMismatchError(
            f"The model takes inputs of shape {architecture.input_shape}, the data has {in_words(shape)}.",
            param=network.field("input_shape"),
        )
    if architecture.kind == "cnn" and shape is not None and len(shape) == 1:
        raise InputShapeMismatchError(
            "A cnn takes images, but the data is a table; use an mlp.", param=network.field("kind")
        )


def _check_widths(spec: JobSpec, networks: Sequence[_Network]) -> None:
    widths = {
        "/data/num_classes": spec.data.num_classes,
        "/data/label_names": len(spec.data.label_names) if spec.data.label_names else None,
        **{network.field("num_classes"): network.architecture.num_classes for network in networks},
    }
    known = {pointer: width for pointer, width in widths.items() if width is not None}
    first, classes = next(iter(known.items()), ("", 0))
    for pointer, width in known.items():
        if width != classes:
            raise OutputWidthMismatchError(f"{width} outputs here, but {first} tells {classes} classes.", param=pointer)


def _check_task(spec: JobSpec, shape: Shape) -> None:
    if shape is None:
        return
    is_table = len(shape) == 1
    if spec.task is not None and spec.task.kind in _TAKES_TABLES and _TAKES_TABLES[spec.task.kind] != is_table:
        raise UnusableArrayError(
            f"Inputs are {'a table' if is_table else 'images'}, which {spec.task.kind} does not take.",
            param="/task/kind",
        )
    trainings = {"/training": spec.training}
    if spec.teacher.kind == "train":
        trainings["/teacher/training"] = spec.teacher.training
    for pointer, training in trainings.items():
        if is_table and training.augmentation is not None:
            raise InvalidSpecError(
                "Augmentation changes images, but the data is a table; leave it out.", param=f"{pointer}/augmentation"
            )


def _check_normalizations(spec: JobSpec, shape: Shape) -> None:
    if shape is None or shape[0] is None:
        return
    given: dict[str, Normalization | None] = {"/data/normalization": spec.data.normalization}
    if isinstance(spec.teacher, CheckpointTeacher):
        given["/teacher/normalization"] = spec.teacher.normalization
    for pointer, normalization in given.items():
        if normalization is not None and len(normalization.mean) not in {1, shape[0]}:
            raise InvalidSpecError(
                f"Normalisation has {len(normalization.mean)} values; inputs have {shape[0]} "
                f"{'columns' if len(shape) == 1 else 'channels'}. Give as many, or one for all.",
                param=f"{pointer}/mean",
            )
