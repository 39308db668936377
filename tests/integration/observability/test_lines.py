"""Log lines of a real API, a real worker and its trainers, all of one kind."""

import json
import re

import pytest

from stillhouse.contract.status import Phase
from tests.fixtures.house import BAD_REQUEST, GOOD_REQUEST, House, Line
from tests.fixtures.service import ADMIN_KEY


def about(lines: list[Line], job_id: str) -> list[Line]:
    return [line for line in lines if line.get("job_id") == job_id]


def told_by_trainer(house: House, job_id: str) -> list[Line]:
    return [json.loads(line) for line in house.trainer_logs[job_id].splitlines() if line.startswith("{")]


def test_every_line_says_when_how_grave_and_who(house: House) -> None:
    for process, lines in (("api", house.api_lines), ("worker", house.worker_lines)):
        assert lines
        for line in lines:
            assert {"timestamp", "level", "event", "logger"} <= set(line)
            assert line["process"] == process
            assert line["timestamp"].endswith("Z")


def test_lines_of_uvicorn_and_celery_are_of_the_same_kind(house: House) -> None:
    assert any(line["logger"] == "uvicorn.error" for line in house.api_lines)
    (ready,) = [line for line in house.worker_lines if line["event"].endswith(" ready.")]
    assert ready["logger"].startswith("celery.")


def test_a_request_is_one_line_with_the_route_and_no_more_of_what_was_sent(house: House) -> None:
    (submit,) = [line for line in house.api_lines if line.get("request_id") == GOOD_REQUEST and "route" in line]
    assert (submit["method"], submit["route"], submit["status"]) == ("POST", "/jobs", 202)
    assert submit["seconds"] > 0
    assert any(line["route"] == "/jobs/{job_id}" for line in about(house.api_lines, house.good_job) if "route" in line)
    assert not any(line.get("route") == "/metrics" for line in house.api_lines)


def test_the_id_of_the_request_goes_with_the_job_to_its_worker_and_its_trainer(house: House) -> None:
    for job_id, request_id in ((house.good_job, GOOD_REQUEST), (house.bad_job, BAD_REQUEST)):
        (rang,) = [line for line in about(house.api_lines, job_id) if line["event"] == "rang for a worker"]
        assert rang["request_id"] == request_id
        supervised = about(house.worker_lines, job_id)
        assert len(supervised) >= 3
        assert {(line["request_id"], line["attempt"]) for line in supervised} == {(request_id, 1)}
        trained = told_by_trainer(house, job_id)
        assert {(line["request_id"], line["job_id"], line["attempt"]) for line in trained} == {(request_id, job_id, 1)}
        (worker,) = {line["worker"] for line in supervised}
        assert {line["worker"] for line in trained} == {worker}
        assert {line["process"] for line in trained} == {"trainer"}


def test_the_phase_of_the_job_stands_in_its_lines(house: House) -> None:
    first, *_, last = about(house.worker_lines, house.good_job)
    assert first["phase"] == Phase.STAGING
    assert last["phase"] == Phase.DISTILLING
    assert told_by_trainer(house, house.bad_job)[-1]["phase"] == Phase.DISTILLING


def test_what_a_line_is_about_ends_with_it(house: House) -> None:
    (served,) = [line for line in house.worker_lines if line["event"] == "metrics are served"]
    assert not {"job_id", "request_id", "phase"} & set(served)
    ids = [line["request_id"] for line in house.api_lines if line["event"] == "request"]
    assert len(ids) == len(set(ids))


def test_a_crash_of_the_trainer_is_one_line_with_its_traceback(house: House) -> None:
    (crash,) = [line for line in told_by_trainer(house, house.bad_job) if line["level"] == "error"]
    assert "ZeroDivisionError: a bug of ours" in crash["exception"]


def test_a_client_names_neither_its_request_nor_method_nor_path_where_that_is_not_sane(house: House) -> None:
    told = [line for line in house.api_lines if line.get("request_id") in house.forgeries]
    assert len(told) == len(house.forgeries)
    for line in told:
        assert re.fullmatch(r"req_[0-9a-f]{20}", line["request_id"])
        assert set(line) == {
            "timestamp", "level", "event", "process", "logger", "request_id", "method", "route", "status", "seconds",
        }
    assert {(line["method"], line["route"]) for line in told} == {
        ("GET", "/jobs/{job_id}"), ("GET", "unmatched"), ("GET", "/jobs"), ("POST", "/jobs"), ("other", "/jobs"),
    }


@pytest.mark.parametrize("text", ["api_text", "worker_text"])
def test_no_secret_and_nothing_that_a_client_made_up_is_logged(house: House, text: str) -> None:
    written = getattr(house, text)
    assert ADMIN_KEY not in written
    assert "forged" not in written
    assert "PROPFIND" not in written
