"""The bundle: everything that the compressed model is, in one zip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from stillhouse.contract.events import ProducedFile
from stillhouse.contract.report import Report
from stillhouse.contract.spec import Architecture, JobSpec
from stillhouse.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Evaluation:
    """The samples on which the exported files must answer like the trained model: raw, as the data has them."""

    inputs: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Exported:
    """What the job hands over: the report, now with parity, and the files below scratch."""

    report: Report
    files: list[ProducedFile]


def export_bundle(
    *,
    scratch: Path,
    student: nn.Module,
    architecture: Architecture,
    preprocessing: Preprocessing,
    label_names: Sequence[str],
    evaluation: Evaluation,
    report: Report,
    spec: JobSpec,
    inputs: Mapping[str, Path],
) -> Exported:
    """Write the student's files below `scratch`/export, prove them in a fresh process, and zip them with the report.

    `architecture` is complete (num_classes and input_shape set); `inputs` are the staged artifacts by id, whose digests
    go into the manifest; `report.parity` and `report.phase_seconds["exporting"]` are filled in here.
    Raises ExportMismatchError when a file, loaded again, does not answer as `student` does.
    """
    raise NotImplementedError
