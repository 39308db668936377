"""What a spec and the headers of its artifacts can tell before anything runs.

Preflight, on the worker, checks again with the data itself; what is wrong here would only waste a place in the queue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from app.artifacts.inspection.facts import ArrayFacts, NpzFacts, SafetensorsFacts
from app.jobs.spec_reading import nearest_name
from stillhouse.contract.failures import (
    EmptyDataError,
    InputShapeMismatchError,
    InvalidSpecError,
    LabelCountMismatchError,
    OutputWidthMismatchError,
    UnknownArchitectureError,
    UnknownArrayError,
    UnknownArtifactError,
    UnusableArrayError,
    WrongArtifactKindError,
)
from stillhouse.contract.spec import (
    Architecture,
    CheckpointTeacher,
    DerivedStudent,
    JobSpec,
    Normalization,
    NpzSplit,
    Split,
    named_base,
    num_derivations,
)

LABEL_DTYPES = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
INPUT_DTYPES = LABEL_DTYPES | {"bool", "float16", "float32", "float64"}
# Number of axes -> axes of an image, by the layout that reads them so.
_IMAGE_AXES = {"hw": 3, "hwc": 4, "chw": 4}
_CHANNEL_COUNTS = (1, 3, 4)
_TABLE_AXES = 2
_WEIGHTS = ("safetensors", "pytorch")
# Kind and formats of the artifacts that a field takes, beside those of the data: a student may begin with a student.
_TAKEN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "/teacher/artifact": (("teacher",), _WEIGHTS), "/initial_weights": (("teacher", "model"), _WEIGHTS),
}
# The last layer, where a tensor's name alone tells it.
_LAST_LAYERS = ("head.weight", "fc.weight", "head.fc.weight", "classifier.weight", "heads.head.weight")


class Stored(Protocol):
    """An artifact's row, as far as admission looks."""

    @property
    def kind(self) -> str:
        """What it is for."""

    @property
    def format(self) -> str:
        """How it is written."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its header told at upload."""


@dataclass(frozen=True)
class _Network:
    """An architecture of the spec, and where the spec names it."""

    pointer: str
    architecture: Architecture

    def field(self, name: str) -> str:
        """Pointer of a field; a checkpoint that tells its own architecture is to blame as a whole."""
        if self.pointer == "/teacher/artifact":
            return self.pointer
        return f"{self.pointer}{'/base' * num_derivations(self.architecture)}/{name}"


def check(spec: JobSpec, stored: Mapping[str, Stored]) -> None:
    """Raise the failure that names what cannot work. `stored` holds the owner's artifacts by id."""
    for pointer, artifact_id in spec.artifacts().items():
        _check_artifact(spec, pointer, artifact_id, stored)
    shapes = {name: _split_shape(spec, name, split, stored) for name, split in spec.splits()}
    shape = shapes["train"]
    for name, other in shapes.items():
        if other != shape:
            raise InputShapeMismatchError(
                f"Inputs of {name} have shape {other}, those of train {shape}.", param=f"/data/{name}/inputs"
            )
    networks = list(_networks(spec, stored))
    for network in networks:
        _check_input(network, shape)
    _check_widths(spec, networks)
    _check_last_layer(spec, stored, networks)
    _check_task(spec, shape)
    _check_normalizations(spec, shape)


def _check_artifact(spec: JobSpec, pointer: str, artifact_id: str, stored: Mapping[str, Stored]) -> None:
    artifact = stored.get(artifact_id)
    if artifact is None:
        raise UnknownArtifactError(
            f"No artifact of yours has the id {artifact_id}; upload the file first.", param=pointer
        )
    kinds, formats = _TAKEN.get(pointer, (("data",), (spec.data.kind,)))
    if artifact.kind not in kinds or artifact.format not in formats:
        raise WrongArtifactKindError(
            f"{artifact_id} is a {artifact.kind} in format {artifact.format}; this field needs a {' or '.join(kinds)} "
            f"in format {' or '.join(formats)}.", param=pointer,
        )


def _split_shape(spec: JobSpec, name: str, split: Split, stored: Mapping[str, Stored]) -> list[int]:
    """Shape of one input of a split as models see it, once inputs and labels were found usable."""
    inputs = _array(split, "inputs", f"/data/{name}/inputs", stored)
    _check_inputs(inputs, f"/data/{name}/inputs")
    if split.is_labelled:
        labels = _array(split, "labels", f"/data/{name}/labels", stored)
        _check_labels(labels, inputs, f"/data/{name}/labels")
    return _input_shape(inputs.shape[1:], spec.data.layout, f"/data/{name}/inputs")


def _array(split: Split, role: str, pointer: str, stored: Mapping[str, Stored]) -> ArrayFacts:
    field: str = getattr(split, role)
    if not isinstance(split, NpzSplit):
        return ArrayFacts.model_validate(stored[field].facts)
    arrays = NpzFacts.model_validate(stored[split.artifact].facts).arrays
    if field not in arrays:
        nearest = nearest_name(field, arrays)
        hint = f"did you mean `{nearest}`?" if nearest else f"it has {', '.join(sorted(arrays)[:20])}."
        raise UnknownArrayError(f"The NPZ file has no array `{field}`; {hint}", param=pointer)
    return arrays[field]


def _check_inputs(inputs: ArrayFacts, pointer: str) -> None:
    if inputs.dtype not in INPUT_DTYPES:
        raise UnusableArrayError(f"Inputs of type {inputs.dtype} cannot be used; give plain numbers.", param=pointer)
    if not _TABLE_AXES <= len(inputs.shape) <= max(_IMAGE_AXES.values()):
        raise UnusableArrayError(
            f"Inputs have shape {inputs.shape}; a table has 2 axes, images have 3 or 4, samples first.", param=pointer
        )
    if prod(inputs.shape) == 0:
        raise EmptyDataError(f"The array has shape {inputs.shape}: no samples.", param=pointer)


def _check_labels(labels: ArrayFacts, inputs: ArrayFacts, pointer: str) -> None:
    if labels.dtype not in LABEL_DTYPES or len(labels.shape) != 1:
        raise UnusableArrayError(
            f"Labels are one integer per sample, but this array is {labels.dtype} of shape {labels.shape}.",
            param=pointer,
        )
    if labels.shape[0] != inputs.shape[0]:
        raise LabelCountMismatchError(f"{labels.shape[0]} labels for {inputs.shape[0]} inputs.", param=pointer)


def _input_shape(axes: Sequence[int], layout: str, pointer: str) -> list[int]:
    """[channels, height, width] of an image, [columns] of a row."""
    if len(axes) == 1:
        return list(axes)
    if layout == "auto":
        layout = "hw" if len(axes) == 2 else "hwc" if axes[-1] in _CHANNEL_COUNTS else "chw"  # noqa: PLR2004 - an image's
    if _IMAGE_AXES[layout] != len(axes) + 1:
        raise UnusableArrayError(
            f"Layout {layout} needs {_IMAGE_AXES[layout]} axes, samples first, but inputs have {len(axes) + 1}.",
            param=pointer,
        )
    if layout == "hw":
        return [1, *axes]
    return [axes[2], axes[0], axes[1]] if layout == "hwc" else list(axes)


def _networks(spec: JobSpec, stored: Mapping[str, Stored]) -> Iterator[_Network]:
    yield _teacher(spec, stored)
    if not isinstance(spec.student, DerivedStudent):
        yield _Network("/student", spec.student)


def _teacher(spec: JobSpec, stored: Mapping[str, Stored]) -> _Network:
    if spec.teacher.architecture is not None:
        return _Network("/teacher/architecture", spec.teacher.architecture)
    if stored[spec.teacher.artifact].format == "pytorch":
        raise UnknownArchitectureError(
            "A PyTorch checkpoint does not tell its architecture; give teacher.architecture.",
            param="/teacher/architecture",
        )
    facts = SafetensorsFacts.model_validate(stored[spec.teacher.artifact].facts)
    if facts.architecture is None:
        why = f" ({facts.architecture_problem})" if facts.architecture_problem else ""
        raise UnknownArchitectureError(
            f"The checkpoint does not tell its architecture{why}; give teacher.architecture.",
            param="/teacher/architecture",
        )
    return _Network("/teacher/artifact", facts.architecture)


def _check_input(network: _Network, shape: Sequence[int]) -> None:
    architecture = network.architecture
    if architecture.input_shape is not None and architecture.input_shape != list(shape):
        raise InputShapeMismatchError(
            f"The model takes inputs of shape {architecture.input_shape}, the data has {list(shape)}.",
            param=network.field("input_shape"),
        )
    kind = named_base(architecture).kind
    if kind != "mlp" and len(shape) == 1:
        raise InputShapeMismatchError(
            f"A {kind} takes images, but the data is a table; use an mlp.", param=network.field("kind")
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


def _check_last_layer(spec: JobSpec, stored: Mapping[str, Stored], networks: Sequence[_Network]) -> None:
    """Compare the number of classes, where something tells it, with the last layer of the checkpoints that show one."""
    of_networks = [network.architecture.num_classes for network in networks]
    given = [spec.data.num_classes, len(spec.data.label_names or ()), *of_networks]
    classes = next((width for width in given if width), None)
    for pointer in _TAKEN:
        artifact = stored.get(spec.artifacts().get(pointer, ""))
        width = None if artifact is None else _last_width(artifact)
        if classes and width and width != classes:
            raise OutputWidthMismatchError(
                f"The last layer of the checkpoint has {width} outputs, and the job has {classes} classes.",
                param=pointer,
            )


def _last_width(artifact: Stored) -> int | None:
    tensors = artifact.facts.get("tensors") or {}
    shapes = [tensors[name]["shape"] for name in _LAST_LAYERS if name in tensors]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == _TABLE_AXES else None


def _check_task(spec: JobSpec, shape: Sequence[int]) -> None:
    is_table = len(shape) == 1
    if spec.task is not None and (spec.task.kind == "tabular_classification") != is_table:
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


def _check_normalizations(spec: JobSpec, shape: Sequence[int]) -> None:
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
