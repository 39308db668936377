"""Teachers of any framework, as ONNX models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillhouse.contract.failures import InputShapeMismatchError, InvalidSpecError, TeacherFailedError
from stillhouse.contract.spec import OnnxTeacher
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.data import Dataset
from worker.engine.teachers.probabilities import are_probabilities, log_probabilities
from worker.engine.teachers.reading import reading
from worker.engine.teachers.teacher import Gives

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

Array = npt.NDArray[Any]

# Samples that are looked at to tell what the outputs are.
NUM_LOOKED_AT: Final = 64
_DTYPES: Final = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int16)": np.int16, "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
_FLOATS: Final = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)"})
# What a scikit-learn classifier gives unless it is exported with zipmap off: a dict of probabilities for each sample.
_DICTS: Final = "seq(map("


class OnnxModelTeacher:
    """An ONNX model, run on the CPU by ONNX Runtime."""

    module: Final = None
    architecture: Final = None
    shares: Final = None

    def __init__(
        self, spec: OnnxTeacher, path: Path, dataset: Dataset, param: str, *, is_classification: bool
    ) -> None:
        self._spec, self._param = spec, param
        self.num_bytes = path.stat().st_size
        self._num_threads = torch.get_num_threads()
        self._content = path.read_bytes()
        self._session = _open(self._content, param, self._num_threads)
        self._read = dataset.preprocessing
        self._preprocessing = reading(spec.normalization, dataset, param) if spec.normalization else None
        self._inputs = _plan_inputs(self._session.get_inputs(), spec, dataset.preprocessing, param)
        self._output = _choose_output(self._session.get_outputs(), spec, param)
        self._batch = _fixed_batch(self._session.get_inputs())
        first = dataset.train.samples.arranged[dataset.train.ids[:NUM_LOOKED_AT]]
        outputs = self._run(first)
        self.num_outputs = outputs.shape[1]
        self.gives: Gives = _tell(spec, outputs, is_classification=is_classification)

    @property
    def description(self) -> str:
        """In short, for the report."""
        return f"onnx {self._session.get_modelmeta().graph_name}"[:80]

    @property
    def num_parameters(self) -> None:
        """Not known: what a model of another framework learned need not stand among its weights."""
        return

    @property
    def identity(self) -> dict[str, Any]:
        """How the model is run and what it is given; the file itself is an artifact of the job."""
        return {
            "backend": "onnxruntime", "threads": self._num_threads, "output": self._output, "gives": self.gives,
            "read": self._read.model_dump(mode="json"),
            "preprocessing": self._preprocessing.model_dump(mode="json") if self._preprocessing else None,
        }

    def timed_pass(self, arranged: Tensor, threads: int) -> Callable[[], object]:
        """A run of a session of its own with so many threads."""
        session = _open(self._content, self._param, threads)
        read = self._preprocessing.normalize(arranged) if self._preprocessing else arranged
        samples = read.cpu().numpy()
        if self._batch:
            samples = np.repeat(samples[:1], self._batch, axis=0)
        taken = {name: take(samples) for name, take in self._inputs.items()}
        return lambda: session.run([self._output], taken)

    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """Outputs (N, num_outputs): logits, values, or logarithms of probabilities, on the device of the samples."""
        del given
        outputs = self._run(arranged)
        if self.gives == "probabilities":
            outputs = log_probabilities(outputs, self._spec.floor)
        return outputs.float().to(arranged.device)

    def _run(self, arranged: Tensor) -> Tensor:
        read = self._preprocessing.normalize(arranged) if self._preprocessing else arranged
        samples = read.cpu().numpy()
        chunks = list(self._chunks(samples)) if self._batch else [self._ask(samples)]
        return torch.from_numpy(np.concatenate(chunks)[: len(samples)])

    def _chunks(self, samples: Array) -> Iterator[Array]:
        """Answers of a model that takes so many samples at once and no other number; the last are filled up."""
        size = self._batch or 1
        for begin in range(0, len(samples), size):
            chunk = samples[begin : begin + size]
            filled = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
            yield self._ask(filled)

    def _ask(self, samples: Array) -> Array:
        try:
            (answer,) = self._session.run([self._output], {name: take(samples) for name, take in self._inputs.items()})
        except Exception as error:  # what ONNX Runtime raises has no base of its own but Exception
            raise TeacherFailedError(f"ONNX Runtime cannot run the model: {error}", param=self._param) from error
        return _as_rows(answer, len(samples), self._output, self._param)


def load_onnx(
    spec: OnnxTeacher, inputs: Mapping[str, Path], dataset: Dataset, param: str, *, is_classification: bool
) -> OnnxModelTeacher:
    """The teacher. Raises what fits when its inputs or outputs do not fit the data."""
    return OnnxModelTeacher(spec, inputs[spec.artifact], dataset, param, is_classification=is_classification)


def _open(content: bytes, param: str, num_threads: int) -> "InferenceSession":
    import onnxruntime  # noqa: PLC0415 - it starts threads, which the forkserver must not have

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        # From bytes, so that there is no folder in which the model could name another file.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise TeacherFailedError(f"ONNX Runtime cannot open the model: {error}", param=f"{param}/artifact") from error


def _fixed_batch(inputs: "Sequence[NodeArg]") -> int | None:
    """How many samples the model takes at once, where it does not take any number."""
    first = inputs[0].shape[0] if inputs[0].shape else None
    return first if isinstance(first, int) and first > 0 else None


def _plan_inputs(
    nodes: "Sequence[NodeArg]", spec: OnnxTeacher, read: Preprocessing, param: str
) -> dict[str, Any]:
    """For each input of the model, a function from arranged samples to what it takes."""
    for node in nodes:
        if node.type not in _DTYPES:
            raise InputShapeMismatchError(
                f"the model's input {node.name} takes {node.type}, and the data are numbers; export the model without "
                "the step that reads text",
                param=param,
            )
    if len(nodes) == 1 and spec.columns is None:
        return {nodes[0].name: _Whole(nodes[0], read.input_shape, param)}
    if len(read.input_shape) != 1:
        raise InputShapeMismatchError(
            f"the model has {len(nodes)} inputs, and an image is one; give a model of one input", param=param
        )
    columns = spec.columns or _consecutive(nodes)
    _check_columns(columns, nodes, read.input_shape[0], param)
    return {node.name: _Columns(node, columns[node.name]) for node in nodes}


class _Whole:
    """The whole sample for the one input, in the order of axes that the input declares."""

    def __init__(self, node: "NodeArg", shape: tuple[int, ...], param: str) -> None:
        self._dtype = _DTYPES[node.type]
        self._order, self._shape = _arrangement(list(node.shape[1:]), shape, node.name, param)

    def __call__(self, samples: Array) -> Array:
        ordered = samples.transpose(self._order) if self._order else samples
        return np.ascontiguousarray(ordered, dtype=self._dtype).reshape(len(samples), *self._shape)


class _Columns:
    """Some columns of a table for one of several inputs."""

    def __init__(self, node: "NodeArg", columns: list[int]) -> None:
        self._dtype, self._columns = _DTYPES[node.type], columns
        self._is_flat = len(node.shape) == 1

    def __call__(self, samples: Array) -> Array:
        taken: Array = np.ascontiguousarray(samples[:, self._columns], dtype=self._dtype)
        return taken[:, 0] if self._is_flat else taken


def _arrangement(
    declared: list[int | str | None], shape: tuple[int, ...], name: str, param: str
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Order of axes to transpose to, where it is another, and the shape of one sample then."""
    candidates: list[tuple[tuple[int, ...] | None, tuple[int, ...]]] = [(None, shape)]
    if len(shape) > 1:
        channels, height, width = shape
        candidates += [((0, 2, 3, 1), (height, width, channels))]
        candidates += [(None, (height, width))] if channels == 1 else []
    candidates.append((None, (int(np.prod(shape)),)))
    for order, arranged in candidates:
        if len(arranged) == len(declared) and all(
            not isinstance(length, int) or length == found for length, found in zip(declared, arranged, strict=True)
        ):
            return order, arranged
    raise InputShapeMismatchError(
        f"the model's input {name} takes samples of {declared}, and those of the data are {list(shape)}", param=param
    )


def _consecutive(nodes: "Sequence[NodeArg]") -> dict[str, list[int]]:
    """Columns one after the other, as many for each input as it declares."""
    columns, begin = {}, 0
    for node in nodes:
        width = node.shape[1] if len(node.shape) > 1 and isinstance(node.shape[1], int) else 1
        columns[node.name] = list(range(begin, begin + width))
        begin += width
    return columns


def _check_columns(columns: Mapping[str, list[int]], nodes: "Sequence[NodeArg]", width: int, param: str) -> None:
    names = [node.name for node in nodes]
    if set(columns) != set(names):
        raise InvalidSpecError(
            f"columns tells of {', '.join(sorted(columns))}, and the model's inputs are {', '.join(names)}",
            param=f"{param}/columns",
        )
    largest = max((column for of_input in columns.values() for column in of_input), default=-1)
    if largest >= width or not all(columns.values()):
        raise InputShapeMismatchError(
            f"the model's inputs read columns 0 to {largest}, and the data have {width}; give teacher.columns",
            param=param,
        )


def _choose_output(nodes: "Sequence[NodeArg]", spec: OnnxTeacher, param: str) -> str:
    names = [node.name for node in nodes]
    if spec.output is not None:
        if spec.output not in names:
            raise InvalidSpecError(
                f"the model has no output {spec.output}; it has {', '.join(names)}", param=f"{param}/output"
            )
        return spec.output
    usable: list[str] = [node.name for node in nodes if node.type in _FLOATS or node.type.startswith(_DICTS)]
    if not usable:
        raise InvalidSpecError(
            f"none of the model's outputs ({', '.join(names)}) holds scores; export it with its probabilities",
            param=f"{param}/output",
        )
    return usable[0]


def _as_rows(answer: Any, count: int, name: str, param: str) -> Array:  # noqa: ANN401 - whatever the model gives
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        classes = list(answer[0])
        answer = np.array([[row[label] for label in classes] for row in answer], dtype=np.float32)
    rows = np.asarray(answer)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.dtype.kind not in "fiu" or len(rows) != count or rows.ndim != 2:  # noqa: PLR2004 - samples and outputs
        raise InvalidSpecError(
            f"the model's output {name} is {rows.dtype} of shape {list(rows.shape)} for {count} samples; one row of "
            "numbers for each is needed",
            param=f"{param}/output",
        )
    if not np.isfinite(rows).all():
        raise TeacherFailedError(f"the model's output {name} contains NaN or infinite values", param=param)
    return rows


def _tell(spec: OnnxTeacher, outputs: Tensor, *, is_classification: bool) -> Gives:
    """What the outputs are, as the spec says or as they look."""
    if spec.gives != "auto":
        return spec.gives
    if not is_classification:
        return "values"
    return "probabilities" if are_probabilities(outputs) else "logits"
