import base64
import hashlib

import pytest

from tests.fixtures.files import idx
from tests.fixtures.service import Service

CONTENT = idx([3, 1000, 1000])
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(service: Service) -> str:
    artifact_id = service.uploaded(CONTENT, name="f\u00fcnf /.idx")
    return f"/artifacts/{artifact_id}/content"


def test_the_whole_file_comes_with_its_digest(service: Service, path: str) -> None:
    response = service.client.get(path)
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["etag"] == f'"{DIGEST}"'
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(DIGEST)).decode()}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"f_nf__.idx\"; filename*=UTF-8''f%C3%BCnf%20%2F.idx"
    )


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1048570-2097160", 1048570, 2097161),
        ("bytes=2999000-", 2999000, len(CONTENT)),
        ("bytes=100-99999999999", 100, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=-99999999999", 0, len(CONTENT)),
    ],
)
def test_a_range_is_served(service: Service, path: str, asked: str, start: int, stop: int) -> None:
    response = service.client.get(path, headers={"Range": asked, "If-Range": f'"{DIGEST}"'})
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_outside_is_refused(service: Service, path: str, asked: str) -> None:
    response = service.client.get(path, headers={"Range": asked})
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,5-6"}, {"Range": "bytes=5-1"}, {"Range": "lines=1-2"}, {"Range": "bytes=-"},
        {"Range": "bytes=" + "9" * 5000 + "-"}, {"Range": "bytes=0-1", "If-Range": '"other"'},
    ],
)
def test_what_is_no_single_range_gets_the_whole_file(service: Service, path: str, headers: dict[str, str]) -> None:
    response = service.client.get(path, headers=headers)
    assert (response.status_code, len(response.content)) == (200, len(CONTENT))


@pytest.mark.parametrize("condition", [f'"{DIGEST}"', f'"x", W/"{DIGEST}"', "*"])
def test_what_the_client_has_is_not_sent_again(service: Service, path: str, condition: str) -> None:
    response = service.client.get(path, headers={"If-None-Match": condition})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{DIGEST}"'
    assert service.client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
