import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.jobs import life
from stillhouse.contract.events import Measured
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.report import Report
from stillhouse.contract.resources import Job
from stillhouse.contract.status import Phase
from tests.fixtures.bells import listening
from tests.fixtures.files import MLP, idx, npy, npz, safetensors
from tests.fixtures.reports import small_report
from tests.fixtures.service import ADMIN_KEY, Service, progressed, running_service

NOBODY = "art_" + "0" * 20


def changed(spec: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    *path, last = pointer.strip("/").split("/")
    place = spec
    for key in path:
        place = place.setdefault(key, {})
    place[last] = value
    return spec


def num_jobs(service: Service) -> int:
    return len(service.client.get("/jobs").json()["data"])


def test_a_job_is_submitted_and_told(either_service: Service) -> None:
    spec = either_service.spec(name="digits", labels={"team": "a/b"}, seed=7)
    response = either_service.client.post("/jobs", json=spec)
    assert response.status_code == 202
    job = Job.model_validate(response.json())
    assert response.headers["location"] == f"/jobs/{job.id}"
    assert (job.name, job.labels, job.seed, job.status, job.terminal) == ("digits", {"team": "a/b"}, 7, "queued", False)
    assert job.spec == spec
    assert job.queue is not None
    assert job.queue.position == 1
    assert job.allowed_actions == ["cancel", "pause"]
    assert Job.model_validate(either_service.client.get(f"/jobs/{job.id}").json()) == job


def test_a_submitted_job_is_rung(service: Service, broker_url: str) -> None:
    with listening(broker_url, "cpu", "gpu") as next_ring:
        for queue, device in (("cpu", "auto"), ("gpu", "cuda")):
            assert service.submitted(device=device) in next_ring(queue)


def test_a_job_is_submitted_though_no_broker_answers(sqlite_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, f"redis+socket://{tmp_path}/nobody.sock", tmp_path) as service:
        job_id = service.submitted()
        assert service.client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("pointer", "value", "code", "param"),
    [
        ("/studnet", {}, "invalid_spec", "/studnet"),
        ("/student/hiden", [4], "invalid_spec", "/student/hiden"),
        ("/student/kind", "mpl", "invalid_spec", "/student/kind"),
        ("/training/epochs", "12", "invalid_spec", "/training/epochs"),
        ("/objective/terms", [{"kind": "kl", "temperature": 0}], "invalid_spec", "/objective/terms/0/temperature"),
        ("/objective/terms", [{"kind": "kl", "temperature": -1}], "invalid_spec", "/objective/terms/0/temperature"),
        ("/objective", {"terms": []}, "invalid_spec", "/objective/terms"),
        ("/objective", {"terms": [{"kind": "kl", "weight": 0}]}, "invalid_spec", "/objective"),
        ("/teacher/artifact", NOBODY, "unknown_artifact", "/teacher/artifact"),
        ("/data/train/labels", NOBODY, "unknown_artifact", "/data/train/labels"),
        ("/student/num_classes", 3, "output_width_mismatch", "/student/num_classes"),
        ("/student/input_shape", [4], "input_shape_mismatch", "/student/input_shape"),
        ("/data/layout", "chw", "unusable_array", "/data/train/inputs"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_with_code_and_pointer(
    service: Service, pointer: str, value: object, code: str, param: str
) -> None:
    response = service.client.post("/jobs", json=changed(service.spec(), pointer, value))
    problem = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (422, code, param)
    assert response.headers["content-type"] == "application/problem+json"
    assert num_jobs(service) == 0


def test_a_misspelt_key_comes_with_a_suggestion(service: Service) -> None:
    problem = service.client.post("/jobs", json=changed(service.spec(), "/student/hiden", [4])).json()
    assert [(error["pointer"], error["suggestion"]) for error in problem["errors"]] == [("/student/hiden", "hidden")]


def test_facts_of_artifacts_are_looked_at(either_service: Service) -> None:
    spec = either_service.spec()
    few = either_service.uploaded(idx([19]))
    bare = either_service.uploaded(safetensors(), kind="teacher")
    table = either_service.uploaded(npz({"inputs": npy([20, 4], "<f4", item_bytes=4), "target": npy([20])}))
    wrong = {
        "label_count_mismatch": changed(either_service.spec(), "/data/train/labels", few),
        "wrong_artifact_kind": changed(either_service.spec(), "/data/train/labels", bare),
        "unknown_architecture": changed(either_service.spec(), "/teacher/artifact", bare),
        "unknown_array": {**spec, "data": {"kind": "npz", "train": {"artifact": table, "labels": "targets"}}},
    }
    answers = {code: either_service.client.post("/jobs", json=spec).json() for code, spec in wrong.items()}
    assert {code: answer["code"] for code, answer in answers.items()} == {code: code for code in wrong}
    assert "did you mean `target`" in answers["unknown_array"]["detail"]
    given = changed(either_service.spec(), "/teacher", {"kind": "checkpoint", "artifact": bare, "architecture": MLP})
    assert either_service.client.post("/jobs", json=given).status_code == 202


def test_another_owners_artifact_is_unknown(service: Service) -> None:
    spec = service.spec()
    with service.new_owner("bob") as bob:
        assert bob.post("/jobs", json=spec).json()["code"] == "unknown_artifact"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"{", 400, "malformed_json"), (b"[1, 2]", 422, "invalid_spec"), (b"", 400, "malformed_json"),
     (b" " * 1_048_577, 413, "spec_too_large")],
)
def test_a_body_that_is_no_spec_is_refused(service: Service, content: bytes, status: int, code: str) -> None:
    response = service.client.post("/jobs", content=content)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_spec_of_unknown_length_is_refused_on_its_way(service: Service) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b" " * 1024

    assert service.client.post("/jobs", content=endless()).json()["code"] == "spec_too_large"


# Idempotency


def test_the_same_key_and_body_are_answered_as_the_first_time(either_service: Service) -> None:
    spec, headers = either_service.spec(), {"Idempotency-Key": "abc"}
    first = either_service.client.post("/jobs", json=spec, headers=headers)
    again = either_service.client.post("/jobs", json=spec, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert num_jobs(either_service) == 1


def test_the_same_key_with_another_body_is_refused(service: Service) -> None:
    headers = {"Idempotency-Key": "abc"}
    assert service.client.post("/jobs", json=service.spec(), headers=headers).status_code == 202
    other = service.client.post("/jobs", json=service.spec(name="other"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert num_jobs(service) == 1


def test_a_refused_spec_does_not_use_its_key_up(service: Service) -> None:
    headers, spec = {"Idempotency-Key": "abc"}, service.spec()
    refused = changed(json.loads(json.dumps(spec)), "/teacher/artifact", NOBODY)
    assert service.client.post("/jobs", json=refused, headers=headers).status_code == 422
    assert service.client.post("/jobs", json=spec, headers=headers).status_code == 202


def test_owners_do_not_share_keys(service: Service) -> None:
    headers, spec = {"Idempotency-Key": "abc"}, service.spec()
    assert service.client.post("/jobs", json=spec, headers=headers).status_code == 202
    with service.new_owner("bob") as bob:
        assert bob.post("/jobs", json=spec, headers=headers).json()["code"] == "unknown_artifact"


def test_many_at_once_with_one_key_make_one_job(either_service: Service) -> None:
    spec = either_service.spec()

    def send(_: int) -> httpx.Response:
        return either_service.client.post("/jobs", json=spec, headers={"Idempotency-Key": "abc"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(16)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_key_in_flight"}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert num_jobs(either_service) == 1


# Lists


def test_jobs_are_listed_newest_first_in_pages_and_by_filters(either_service: Service) -> None:
    spec = either_service.spec()
    for number in range(5):
        sent = {**spec, "name": f"n{number % 2}", "labels": {"parity": str(number % 2), "number": str(number)}}
        assert either_service.client.post("/jobs", json=sent).status_code == 202

    def numbers(**params: Any) -> list[str]:  # noqa: ANN401 - any parameter
        page = either_service.client.get("/jobs", params=params).json()
        return [job["labels"]["number"] for job in page["data"]]

    assert numbers() == ["4", "3", "2", "1", "0"]
    assert numbers(name="n1") == ["3", "1"]
    assert numbers(label="parity:0") == ["4", "2", "0"]
    assert numbers(label=["parity:0", "number:2"]) == ["2"]
    assert numbers(status="running") == []
    assert numbers(status="queued", limit=2) == ["4", "3"]
    first = either_service.client.get("/jobs", params={"limit": 3}).json()
    assert first["has_more"]
    assert numbers(cursor=first["next_cursor"]) == ["1", "0"]


def cursor_of(row_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(["2030-01-01T00:00:00+00:00", row_id]).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"cursor": "nonsense"}, "invalid_cursor"), ({"cursor": "eyJhIjoxfQ"}, "invalid_cursor"),
        ({"cursor": cursor_of("\ud800")}, "invalid_cursor"), ({"cursor": cursor_of("\0")}, "invalid_cursor"),
        ({"limit": "0"}, "invalid_request"), ({"limit": "9999"}, "invalid_request"),
        ({"status": "asleep"}, "invalid_request"), ({"label": "nocolon"}, "invalid_request"),
    ],
)
def test_a_list_that_cannot_be_made_is_refused(service: Service, params: dict[str, str], code: str) -> None:
    response = service.client.get("/jobs", params=params)
    assert (response.status_code, response.json()["code"]) == (422, code)


# Life


def test_a_queued_job_is_cancelled_at_once_and_only_once(service: Service) -> None:
    job_id = service.submitted()
    cancelled = service.client.post(f"/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    again = service.client.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"], again.json()["allowed_actions"]) == (
        409, "illegal_action", ["retry"]
    )


def test_a_running_job_is_asked_to_stop(service: Service) -> None:
    job_id = service.submitted()
    service.claim()
    for _ in range(2):
        cancelled = service.client.post(f"/jobs/{job_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelling")


def test_progress_and_silence_are_told(sqlite_url: str, broker_url: str, tmp_path: Path) -> None:
    with running_service(sqlite_url, broker_url, tmp_path, stalled_seconds=0) as service:
        job_id = service.submitted()
        claim = service.claim()
        service.record(claim, progressed(25), Measured(phase=Phase.DISTILLING, step=25, values={"loss": 0.5}))
        job = Job.model_validate(service.client.get(f"/jobs/{job_id}").json())
    assert (job.status, job.attempt, job.queue, job.stalled) == ("running", 1, None, True)
    assert (job.progress.percent, job.progress.step, job.progress.metrics) == (25, 25, {"loss": 0.5})


def test_a_failure_is_told_with_its_blame(service: Service) -> None:
    job_id = service.submitted()
    life.fail(service.parts.db, service.claim(), DivergedError(step=3).as_failure())
    job = Job.model_validate(service.client.get(f"/jobs/{job_id}").json())
    assert job.error is not None
    assert (job.status, job.terminal, job.error.code, job.error.blame, job.error.step) == (
        "failed", True, "diverged", "user", 3
    )
    missing = service.client.get(f"/jobs/{job_id}/model")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert "failed" in missing.json()["detail"]


def test_results_are_not_there_before_the_end(service: Service) -> None:
    job_id = service.submitted()
    for path in ("model", "model?format=onnx", "report", "report?format=html"):
        response = service.client.get(f"/jobs/{job_id}/{path}")
        assert (response.status_code, response.json()["code"]) == (409, "not_ready")
        assert response.json()["retryable"]


def test_metrics_and_logs_are_read(either_service: Service) -> None:
    job_id = either_service.submitted()
    claim = either_service.claim()
    either_service.record(
        claim, *(Measured(phase=Phase.DISTILLING, step=step, values={"loss": 1 / step}) for step in (1, 2, 4)),
        Measured(phase=Phase.CONTROL, step=1, values={"loss": float("nan")}),
    )
    life.save_log(either_service.parts.db, claim, "hello <b>\n", truncated=True)
    assert either_service.client.get(f"/jobs/{job_id}/metrics").json() == [
        {"name": "loss", "phase": "control", "points": [[1, None]]},
        {"name": "loss", "phase": "distilling", "points": [[1, 1.0], [2, 0.5], [4, 0.25]]},
    ]
    [log] = either_service.client.get(f"/jobs/{job_id}/logs").json()
    assert (log["attempt"], log["text"], log["truncated"]) == (1, "hello <b>\n", True)


@pytest.fixture
def succeeded(service: Service) -> str:
    job_id = service.submitted(name="digits")
    files = {"bundle": b"PK bundle", "safetensors": b"weights", "onnx": b"graph", "report_html": b"<script>x</script>"}
    service.succeed(service.claim(), files)
    return job_id


def test_the_model_is_downloaded_in_every_format(service: Service, succeeded: str) -> None:
    contents = {
        "": b"PK bundle", "?format=zip": b"PK bundle", "?format=safetensors": b"weights", "?format=onnx": b"graph",
    }
    for query, content in contents.items():
        assert service.client.get(f"/jobs/{succeeded}/model{query}").content == content
    part = service.client.get(f"/jobs/{succeeded}/model", headers={"Range": "bytes=3-"})
    assert (part.status_code, part.content) == (206, b"bundle")
    assert part.headers["content-type"] == "application/zip"
    assert 'filename="digits.zip"' in part.headers["content-disposition"]
    assert service.client.get(f"/jobs/{succeeded}/model?format=pickle").json()["code"] == "invalid_request"


def test_the_files_of_a_job_are_told_with_digests(service: Service, succeeded: str) -> None:
    job = Job.model_validate(service.client.get(f"/jobs/{succeeded}").json())
    assert job.has_succeeded
    assert [file.role for file in job.files] == ["bundle", "onnx", "report_html", "safetensors"]
    etag = service.client.get(f"/jobs/{succeeded}/model").headers["etag"]
    assert etag == f'"{job.files[0].sha256}"'


def test_the_report_comes_as_json(service: Service, succeeded: str) -> None:
    response = service.client.get(f"/jobs/{succeeded}/report")
    assert response.headers["content-type"] == "application/json"
    assert Report.model_validate(response.json()) == small_report()


@pytest.mark.parametrize(("query", "accept"), [("?format=html", "*/*"), ("", "text/html,*/*")])
def test_the_report_comes_as_a_page_that_can_do_no_harm(
    service: Service, succeeded: str, query: str, accept: str
) -> None:
    response = service.client.get(f"/jobs/{succeeded}/report{query}", headers={"Accept": accept})
    assert response.text == "<script>x</script>"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"].startswith("inline")


def test_another_owners_job_is_not_there(either_service: Service) -> None:
    job_id = either_service.submitted()
    with either_service.new_owner("bob") as bob:
        answers = [
            bob.get(f"/jobs/{job_id}{path}")
            for path in ("", "/events", "/metrics", "/logs", "/report", "/report?format=html", "/model")
        ]
        answers.append(bob.post(f"/jobs/{job_id}/cancel"))
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 8
        assert bob.get("/jobs").json()["data"] == []
    assert either_service.client.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_a_client_that_leaves_while_it_sends_a_spec_makes_no_job(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(
            f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
            "Content-Length: 1000\r\n\r\n{".encode()
        )
    assert num_jobs(service) == 0


@pytest.mark.embedded
def test_a_database_out_of_reach_is_told(service: Service, tmp_path: Path) -> None:
    service.parts.db.dispose()
    (tmp_path / "stillhouse.db").rename(tmp_path / "gone.db")
    (tmp_path / "stillhouse.db").mkdir()
    response = service.client.get("/jobs")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"]
    assert service.client.get("/readyz").status_code == 503
    assert service.client.get("/healthz").status_code == 200
    (tmp_path / "stillhouse.db").rmdir()
    (tmp_path / "gone.db").rename(tmp_path / "stillhouse.db")
    assert service.client.get("/jobs").status_code == 200
