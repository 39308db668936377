import pytest
from pydantic import ValidationError

from stillhouse.contract.events import TRAINER_EVENT, CheckpointSaved, RecordedEvent, StatusChanged, UnknownEvent
from stillhouse.contract.status import Phase, Status


def recorded(event: dict[str, object]) -> RecordedEvent:
    return RecordedEvent.model_validate({"seq": 1, "at": "2026-01-01T00:00:00Z", "attempt": 1, "event": event})


def test_an_event_survives_the_wire() -> None:
    event = CheckpointSaved(phase=Phase.DISTILLING, step=7, file="checkpoints/7.safetensors")
    assert TRAINER_EVENT.validate_json(event.model_dump_json()) == event


def test_a_reader_survives_an_event_of_a_newer_service() -> None:
    event = recorded({"type": "teleported", "to": "elsewhere"}).event
    assert isinstance(event, UnknownEvent)
    assert event.type == "teleported"


def test_a_reader_survives_a_new_key_in_a_known_event() -> None:
    assert isinstance(recorded({"type": "status", "status": "queued", "reason": "", "new": 1}).event, StatusChanged)


@pytest.mark.parametrize("status", list(Status))
def test_only_a_terminal_status_ends_the_log(status: Status) -> None:
    ends = recorded({"type": "status", "status": status, "reason": "x"}).ends_job
    assert ends == (status in {"succeeded", "failed", "cancelled"})


def test_a_trainer_cannot_claim_a_status() -> None:
    with pytest.raises(ValidationError):
        TRAINER_EVENT.validate_json('{"type": "status", "status": "succeeded", "reason": "trust me"}')


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../b", "a//b", ".hidden", "", "a\\..\\b", "a/./b"])
def test_a_trainer_cannot_name_a_file_outside_its_scratch(path: str) -> None:
    with pytest.raises(ValidationError):
        TRAINER_EVENT.validate_python({"type": "checkpoint", "phase": "distilling", "step": 1, "file": path})
