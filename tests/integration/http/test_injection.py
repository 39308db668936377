"""Hostile text in every place where a client may put text, and hostile senders at every door."""

import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.fixtures.files import idx
from tests.fixtures.service import ADMIN_KEY, Service

NASTY = (
    "x'; DROP TABLE jobs; --", '" OR 1=1 --', "%' OR '1'='1", "a\r\nSet-Cookie: stolen=1", "a\nX-Evil: 1\r\n\r\n<html>",
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "../../etc/passwd", "$(id)`id`", "\u202e\u0000",
)
FOREIGN = ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"})
UNGUARDED = {"/healthz", "/readyz"}


def endpoints(service: Service) -> Iterator[tuple[str, str]]:
    """Method and path of every endpoint, with an id of nothing."""
    for path, by_method in service.client.get("/openapi.json").json()["paths"].items():
        for method in by_method:
            yield method.upper(), re.sub(r"{\w+}", "x", path)


@pytest.mark.parametrize("headers", FOREIGN)
def test_no_endpoint_answers_another_sites_page(service: Service, headers: dict[str, str]) -> None:
    asked = [each for each in endpoints(service) if each[1] not in UNGUARDED]
    assert len(asked) > 15
    for method, path in [*asked, ("GET", "/openapi.json"), ("GET", "/docs"), ("OPTIONS", "/jobs")]:
        response = service.client.request(method, path, headers=headers, content=b"{}")
        assert response.status_code == 403, (method, path)
        assert method == "HEAD" or response.json()["code"] == "forbidden_origin", (method, path)
        assert "access-control-allow-origin" not in response.headers
    assert service.client.get("/jobs").json()["data"] == []


def safe(response: httpx.Response) -> httpx.Response:
    """The answer, of which nothing came from the client as a header, a page, or an error of ours."""
    assert response.status_code < 500, response.text
    assert "set-cookie" not in response.headers
    assert "x-evil" not in response.headers
    assert not response.headers.get("content-type", "").startswith("text/html")
    return response


@pytest.mark.parametrize("text", NASTY)
def test_text_in_ids_and_questions_is_only_text(either_service: Service, text: str) -> None:
    job_id = either_service.submitted(name="mine")
    client = either_service.client
    for path in ("/jobs", "/artifacts", "/keys", "/plans"):
        assert safe(client.get(f"{path}/{httpx.QueryParams({'a': text})!s}"[:200])).status_code in {404, 405}
    for params in ({"name": text}, {"label": f"{text}:{text}"}, {"label": f"a:{text}"}, {"cursor": text}):
        answer = safe(client.get("/jobs", params=params))
        assert answer.status_code == 422 or answer.json()["data"] == [], params
    named = re.sub(r"[\r\n\0]", "", text).encode()
    safe(client.get("/jobs", headers={b"X-Request-Id": named}))
    assert client.get(f"/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize("text", NASTY)
def test_names_and_labels_come_back_as_they_were_and_never_as_headers(service: Service, text: str) -> None:
    client = service.client
    shown = text.replace("\0", "\ufffd")
    uploaded = client.post("/artifacts", params={"kind": "data", "name": text}, content=idx([1])).json()
    assert client.get(f"/artifacts/{uploaded['id']}").json()["name"] == shown
    download = safe(client.get(f"/artifacts/{uploaded['id']}/content"))
    assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9._-]*\"; filename\*=UTF-8''[A-Za-z0-9%._~-]*",
                        download.headers["content-disposition"])
    assert download.headers["x-content-type-options"] == "nosniff"
    safe(client.post("/keys", json={"name": text}))
    assert client.get("/keys").json()["data"][0]["name"] == shown
    answer = safe(client.post("/jobs", json=service.spec(name=text, labels={"team": text})))
    if answer.status_code == 202:
        assert (answer.json()["name"], answer.json()["labels"]["team"]) == (shown, shown)


def test_a_jobs_name_is_no_header_of_its_model(service: Service) -> None:
    service.submitted(name='a"; filename=evil.exe')
    claim = service.claim()
    service.succeed(claim, {"bundle": b"PK", "report_html": b"<script>alert(1)</script>"})
    model = safe(service.client.get(f"/jobs/{claim.job_id}/model"))
    assert model.headers["content-disposition"].count("filename=") == 1
    report = service.client.get(f"/jobs/{claim.job_id}/report", params={"format": "html"})
    # A page that is shown, with a script in it: the browser runs none.
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert report.headers["x-content-type-options"] == "nosniff"


def test_no_client_writes_lines_into_the_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def broken(*_args: object) -> None:
        raise ZeroDivisionError

    object.__setattr__(service.parts.numbers, "text", broken)
    forged = "x%0aERROR forged line"
    # A connection of its own: the server closes it after a mistake of ours.
    with service.client_with(ADMIN_KEY) as other:
        other.get("/metrics", headers={"X-Request-Id": "forged-line ERROR forged line"})
    service.client.get(f"/jobs/{forged}")
    service.client.get("/jobs", params={"name": "a\nERROR forged line"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("app", "stillhouse"))]
    assert any("failed" in line for line in ours)
    assert not any("forged" in line or "\n" in line for line in ours)
