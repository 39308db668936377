"""The bundle: everything that the compressed model is, in one zip."""

import copy
import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from torch import nn

from stillhouse.contract.events import ProducedFile
from stillhouse.contract.report import Report
from stillhouse.contract.spec import Architecture, JobSpec
from stillhouse.contract.status import Phase
from stillhouse.models import save_checkpoint
from stillhouse.models.bundle import (
    CONFIG,
    LABELS,
    MANIFEST,
    ONNX,
    PREPROCESSING,
    WEIGHTS,
    Config,
    FileRecord,
    Labels,
    Manifest,
)
from stillhouse.models.preprocessing import Preprocessing
from worker.engine.export.card import render_card
from worker.engine.export.prove import Evaluation, prove

FOLDER: Final = "export"
BUNDLE: Final = "student.zip"
REPORT: Final = "report.json"
REPORT_HTML: Final = "report.html"
CARD: Final = "README.md"

# Compressed weights save little, and stored ones are read without a limit of expansion.
_STORED: Final = frozenset({WEIGHTS, ONNX})
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


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
    started = perf_counter()
    folder = scratch / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    student = copy.deepcopy(student).cpu().float().eval()
    save_checkpoint(folder / WEIGHTS, student, architecture, preprocessing.normalization)
    _write(folder / CONFIG, Config(architecture=architecture, task=spec.task).model_dump(mode="json"))
    _write(folder / LABELS, _labels(label_names, architecture).model_dump(mode="json"))
    (folder / PREPROCESSING).write_text(preprocessing.to_json(), "utf-8")
    parity = prove(
        folder, student=student, preprocessing=preprocessing, evaluation=evaluation, formats=spec.export.formats,
        work=scratch / "parity",
    )
    seconds = report.phase_seconds | {Phase.EXPORTING.value: round(perf_counter() - started, 3)}
    report = report.model_copy(update={"parity": parity, "phase_seconds": seconds})
    _write_report(folder, report, preprocessing)
    _write(folder / MANIFEST, _manifest(folder, report, spec, inputs).model_dump(mode="json"))
    _zip(folder)
    return Exported(report, _produced(folder))


def _labels(label_names: Sequence[str], architecture: Architecture) -> Labels:
    """The outputs' names, or how many they are where they have none."""
    return Labels(label_names=tuple(label_names), num_outputs=architecture.num_classes or 0)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _write_report(folder: Path, report: Report, preprocessing: Preprocessing) -> None:
    from worker.engine.export.report_html import render_html  # noqa: PLC0415 - matplotlib would slow the fresh process

    (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    (folder / REPORT_HTML).write_text(render_html(report), "utf-8")
    card = render_card(report, preprocessing, has_onnx=(folder / ONNX).exists())
    (folder / CARD).write_text(card, "utf-8")


def _manifest(folder: Path, report: Report, spec: JobSpec, inputs: Mapping[str, Path]) -> Manifest:
    digests = {
        pointer: {"artifact": artifact, "sha256": _sha256(inputs[artifact])}
        for pointer, artifact in spec.artifacts().items()
    }
    return Manifest(
        created_at=report.created_at.isoformat(),
        files={
            path.name: FileRecord(sha256=_sha256(path), size=path.stat().st_size)
            for path in _contents(folder) if path.name != MANIFEST
        },
        teacher={"kind": spec.teacher.kind, **digests.pop("/teacher/artifact", {})},
        data=digests,
        spec=spec.model_dump(mode="json", exclude_unset=True),
        seed=spec.seed,
        versions=report.environment.versions,
    )


def _contents(folder: Path) -> list[Path]:
    """Files that go into the zip, always in the same order."""
    return sorted(path for path in folder.iterdir() if path.name != BUNDLE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zip(folder: Path) -> None:
    """The same files give the same bytes: fixed order, times and permissions."""
    with zipfile.ZipFile(folder / BUNDLE, "w") as archive:
        for path in _contents(folder):
            info = zipfile.ZipInfo(path.name, _EPOCH)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_STORED if path.name in _STORED else zipfile.ZIP_DEFLATED
            info.file_size = path.stat().st_size  # tells zipfile whether the member needs zip64
            with path.open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, 1024 * 1024)


def _produced(folder: Path) -> list[ProducedFile]:
    files = [
        ProducedFile(role="bundle", file=f"{FOLDER}/{BUNDLE}"),
        ProducedFile(role="safetensors", file=f"{FOLDER}/{WEIGHTS}"),
        ProducedFile(role="report_html", file=f"{FOLDER}/{REPORT_HTML}"),
    ]
    if (folder / ONNX).exists():
        files.append(ProducedFile(role="onnx", file=f"{FOLDER}/{ONNX}"))
    return files
