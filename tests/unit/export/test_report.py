import pytest
import safetensors.torch
from torch import nn

from stillhouse.contract.report import Scores
from tests.fixtures.results import make_plain_report
from worker.engine.report import describe_subject


def test_ratios_and_gain_come_from_the_subjects() -> None:
    report = make_plain_report()
    teacher, student = report.subject("teacher"), report.subject("student")
    assert teacher is not None
    assert student is not None
    assert (teacher.num_parameters, student.num_parameters) == (120 * 64 + 64 + 650, 120 * 8 + 8 + 90)
    assert student.num_parameters is not None
    assert teacher.num_parameters is not None
    assert teacher.num_bytes is not None
    assert student.num_bytes is not None
    assert report.parameter_ratio == teacher.num_parameters / student.num_parameters
    assert report.size_ratio == teacher.num_bytes / student.num_bytes
    assert report.gain == pytest.approx(0.42)
    assert teacher.latency is not None
    assert student.latency is not None
    assert report.speed_ratio == teacher.latency.p50_ms / student.latency.p50_ms


def test_the_environment_is_that_of_this_process() -> None:
    environment = make_plain_report().environment
    assert {"python", "torch", "numpy", "onnxruntime"} <= set(environment.versions)
    assert "core" in environment.machine


def test_bytes_are_those_of_a_safetensors_file() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    subject = describe_subject("student", model, architecture="x", scores=Scores())
    assert subject.num_bytes == len(safetensors.torch.save(model.state_dict()))
    assert subject.num_parameters == 3 * 2 + 2 + 4


def test_notes_tell_what_a_number_does_not() -> None:
    notes = make_plain_report(notes=["Mine first."]).notes
    assert notes[0] == "Mine first."
    assert any("one seed" in note for note in notes)
    assert not any("flatter" in note for note in notes)
