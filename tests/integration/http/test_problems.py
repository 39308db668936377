import socket

import httpx
import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from app.http.guard import REQUEST_ID_HEADER
from stillhouse.contract.failures import every_failure
from stillhouse.contract.resources import Problem
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import TRANSITIONS
from tests.fixtures.service import ADMIN_KEY, Service, bearer

OPEN = {"/healthz", "/readyz", "/recipes", "/schemas/job"}


def told(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.status == response.status_code
    assert problem.request_id == response.headers[REQUEST_ID_HEADER]
    assert problem.type == f"urn:stillhouse:error:{problem.code}"
    assert problem.detail
    return response.status_code, problem.code


def test_errors_of_the_framework_are_problems_too(service: Service) -> None:
    client = service.client
    assert told(client.get("/nothing")) == (404, "not_found")
    assert told(client.get("/jobs/")) == (404, "not_found")
    assert told(client.put("/jobs")) == (405, "method_not_allowed")
    assert client.put("/jobs").headers["allow"] == "GET, POST"
    assert told(client.get("/jobs", params={"limit": "many"})) == (422, "invalid_request")
    assert client.get("/jobs", params={"limit": "many"}).json()["errors"][0]["pointer"] == "limit"
    assert told(client.get(f"/jobs/job_{'0' * 20}")) == (404, "not_found")
    assert told(client.get("/jobs/%00")) == (404, "not_found")
    assert client.get("/jobs?name=%00&label=a:%00").status_code == 200


@pytest.mark.parametrize("header", [None, "Bearer", "Basic abc", "Bearer sk_wrong", f"Token {ADMIN_KEY}"])
def test_without_a_good_key_nothing_is_told(service: Service, header: str | None) -> None:
    with service.client_with(None) as nobody:
        for path in ("/jobs", "/artifacts", "/keys", "/metrics", "/jobs/x/events", "/artifacts/x/content"):
            response = nobody.get(path, headers={"Authorization": header} if header else {})
            assert told(response) == (401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"


def test_an_unauthenticated_upload_is_refused_before_it_is_sent(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(b"POST /artifacts?kind=data HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_revoked_key_is_refused(either_service: Service) -> None:
    made = either_service.client.post("/keys", json={"name": "short-lived"}).json()
    with either_service.client_with(made["secret"]) as client:
        assert client.get("/jobs").status_code == 200
        assert either_service.client.delete(f"/keys/{made['id']}").status_code == 204
        assert told(client.get("/jobs")) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("headers", "is_answered"),
    [
        ({}, True),
        ({"Host": "localhost"}, True),
        ({"Host": "LOCALHOST:8765"}, True),
        ({"Host": "[::1]:8765"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "localhost.evil.example"}, False),
        ({"Host": "[::1"}, False),
        ({"Origin": "http://localhost:3000"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_only_named_hosts_and_origins_are_answered(
    service: Service, headers: dict[str, str], is_answered: bool
) -> None:
    response = service.client.get("/jobs", headers=headers)
    if is_answered:
        assert response.status_code == 200
    else:
        assert told(response) == (403, "forbidden_origin")
    assert service.client.get("/healthz", headers=headers).status_code == 200


def test_a_request_keeps_the_name_that_a_client_gave_it(service: Service) -> None:
    given = service.client.get("/nothing", headers={REQUEST_ID_HEADER: "my-request-1"})
    assert given.json()["request_id"] == "my-request-1"
    for insane in ("x", "a" * 100, "a b c d e f g h", "<script>alert()</script>"):
        named = service.client.get("/nothing", headers={REQUEST_ID_HEADER: insane}).headers[REQUEST_ID_HEADER]
        assert named.startswith("req_")


def test_a_mistake_of_ours_is_told_without_its_details(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_args: object) -> None:
        raise ZeroDivisionError("secret details")

    app_state = service.parts.numbers
    object.__setattr__(app_state, "text", broken)
    response = service.client.get("/metrics")
    assert told(response) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers[REQUEST_ID_HEADER] in caplog.text


def test_the_openapi_document_is_valid_and_whole(service: Service) -> None:
    with service.client_with(None) as nobody:
        document = nobody.get("/openapi.json").json()
    validate(document)
    schemas = document["components"]["schemas"]
    assert set(JobSpec.model_json_schema()["properties"]) == set(schemas["JobSpec"]["properties"])
    assert {"Problem", "Job", "Artifact", "RecordedEvent"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    assert schemas["Status"]["x-transitions"] == {
        status: sorted(following) for status, following in TRANSITIONS.items()
    }


def test_the_validator_would_notice(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    document["paths"]["/jobs"]["get"]["responses"] = {"200": {}}
    with pytest.raises(OpenAPIValidationError):
        validate(document)


def test_every_route_declares_its_problems(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    codes = {kind.code for kind in every_failure()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert ("401" in operation["responses"]) == (path not in OPEN), where
            assert ("security" in operation) == (path not in OPEN), where
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["content"]["application/problem+json"]["examples"]) <= codes, where


def test_a_declared_problem_is_an_example_of_itself(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    examples = document["paths"]["/jobs"]["post"]["responses"]["413"]["content"]["application/problem+json"]["examples"]
    assert Problem.model_validate(examples["spec_too_large"]["value"]).code == "spec_too_large"


def test_the_schema_of_a_job_is_served(service: Service) -> None:
    assert service.client.get("/schemas/job").json() == JobSpec.model_json_schema()


def test_health_and_readiness_are_told_without_a_key(service: Service) -> None:
    with service.client_with(None) as nobody:
        assert nobody.get("/healthz").json() == {"status": "ok"}
        assert nobody.get("/readyz").json() == {"database": "ok", "broker": "ok", "store": "ok"}


def test_numbers_are_told_by_route_and_status(service: Service) -> None:
    service.submitted()
    service.client.get(f"/jobs/job_{'0' * 20}")
    lines = service.client.get("/metrics", headers=bearer(ADMIN_KEY)).text.splitlines()
    count = "stillhouse_http_request_seconds_count"
    assert f'{count}{{method="GET",route="/jobs/{{job_id}}",status="404"}} 1.0' in lines
    assert f'{count}{{method="POST",route="/artifacts",status="201"}} 3.0' in lines
    assert 'stillhouse_jobs{queue="cpu",status="queued"} 1.0' in lines
    assert 'stillhouse_jobs{queue="cpu",status="running"} 0.0' in lines
    assert any(line.startswith('stillhouse_queue_age_seconds{queue="cpu"} ') for line in lines)
