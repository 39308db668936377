"""`stillhouse doctor` where something is wrong: the words that it finds, and how it exits."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import Result

from stillhouse import __version__
from stillhouse.local import preconditions
from tests.fixtures.scripted_service import Reply, ScriptedService, Seen, as_json, problem
from tests.integration.cli.conftest import Run

KEY = {
    "id": "key_1", "owner": "ann", "name": "laptop", "scopes": ["read"], "prefix": "sk_secre",
    "created_at": "2026-01-02T03:04:05Z", "in_force": {},
    "used": {"stored_bytes": 0, "queued_jobs": 0, "running_jobs": 0},
}


@pytest.fixture(autouse=True)
def alive(service: ScriptedService) -> None:
    service.on("GET", "/healthz", as_json({"status": "ok"}))


def well(service: ScriptedService, *but: str, **key: object) -> None:
    """Answers as a sound service does, but for the routes that the test answers."""
    answers = {
        "/openapi.json": {"info": {"title": "Stillhouse", "version": __version__}},
        "/readyz": {"database": "ok", "broker": "ok", "store": "ok"}, "/keys/current": {**KEY, **key},
    }
    for path in answers.keys() - set(but):
        service.on("GET", path, as_json(answers[path]))


def line(result: Result, check: str) -> str:
    """The lines of a check, with what is advised."""
    words = [line.split() for line in result.stdout.splitlines()]
    start = next(number for number, each in enumerate(words) if check in " ".join(each[:4]))
    end = start + 2 if words[start + 1:] and words[start + 1][0] == "->" else start + 1
    return " ".join(word for each in words[start:end] for word in each)


def test_a_key_that_only_reads_is_well_and_stores_nothing(service: ScriptedService, run: Run) -> None:
    well(service)
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "may read" in line(result, "key")
    assert line(result, "round trip") == "not tried round trip This key may not submit."
    assert {seen.method for seen in service.seen} == {"GET"}
    told = json.loads(run("doctor", "--json").stdout)
    assert told["is_well"]
    assert [finding["check"] for finding in told["findings"]] == [
        "address", "service", "version", "ready", "key", "limits", "round trip",
    ]


def test_no_service_at_all(run: Run, service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    service.stop()
    result = run("doctor")
    assert result.exit_code == 4
    assert "connection refused" in line(result, "service")
    unknown = run("doctor", "--url", "http://ann:hidden@no-such-host.invalid")
    assert unknown.exit_code == 4
    assert "the name of the host is not known" in line(unknown, "service")
    assert "hidden" not in unknown.output
    monkeypatch.delenv("STILLHOUSE_URL")
    monkeypatch.chdir(tmp_path)
    nothing = run("doctor")
    assert nothing.exit_code == 4
    assert "stillhouse up" in line(nothing, "address")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Reply(b"<h1>It works!</h1>"), "it is not Stillhouse (200)"),
        (problem(403, "forbidden_origin"), "STILLHOUSE_ALLOWED_HOSTS"),
    ],
)
def test_what_is_no_service_of_ours(run: Run, answer: Reply, told: str) -> None:
    with ScriptedService().serving() as other:
        other.on("GET", "/healthz", answer)
        result = run("doctor", "--url", other.url)
    assert result.exit_code == 4
    assert told in line(result, "service")


@pytest.mark.parametrize(
    ("path", "answer", "check", "told"),
    [
        ("/openapi.json", as_json({"info": {"version": "0.0.9"}}), "version", "warning version The service is 0.0.9"),
        ("/readyz", problem(503, "unavailable", errors=[{"pointer": "store", "detail": "out of reach"}]), "its store",
         "failed its store Out of reach. -> Tell whoever runs the service"),
        ("/keys/current", problem(401, "unauthenticated"), "key", "failed key The service does not take the key"),
        ("/keys/current", problem(404, "not_found"), "key", "warning key The service is too old"),
        ("/keys/current", problem(429, "rate_limited"), "key", "warning key"),
    ],
)
def test_each_thing_that_is_wrong_has_its_line(
    service: ScriptedService, run: Run, path: str, answer: Reply, check: str, told: str
) -> None:
    well(service, path)
    service.on("GET", path, answer)
    result = run("doctor")
    assert told in line(result, check)
    assert result.exit_code == (1 if told.startswith("failed") else 0)


def test_what_is_nearly_used_up_is_warned_of(service: ScriptedService, run: Run) -> None:
    used = {"stored_bytes": 950, "queued_jobs": 1, "running_jobs": 0}
    well(service, in_force={"stored_bytes": 1000, "queued_jobs": 9}, used=used, expires_at="2026-01-02T03:04:05Z")
    result = run("doctor")
    assert "warning limits 950 B of 1.0 kB stored; 50 B left. -> Delete artifacts" in line(result, "limits")
    assert "1 of 9 jobs queued; 8 left" in result.stdout
    assert "It ends at 2026-01-02" in line(result, "key")


def test_a_file_that_comes_back_as_another_is_told_and_deleted(service: ScriptedService, run: Run) -> None:
    well(service, scopes=["read", "submit"])

    def stored(seen: Seen) -> Reply:
        about = {"id": "art_1", "kind": "data", "format": "idx", "name": "x", "created_at": "2026-01-02T03:04:05Z"}
        return as_json({**about, "size": len(seen.body), "sha256": hashlib.sha256(seen.body).hexdigest()}, 201)

    service.on("POST", "/artifacts", stored)
    service.on("GET", "/artifacts/art_1/content", Reply(b"other"))
    service.on("DELETE", "/artifacts/art_1", Reply(status=204))
    result = run("doctor")
    assert result.exit_code == 1
    assert "came back as another one" in line(result, "round trip")
    assert len(service.requests("DELETE", "/artifacts/art_1")) == 1


def test_the_local_service_is_told_by_its_folder(
    service: ScriptedService, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STILLHOUSE_URL")
    home = tmp_path / "home"
    assert "None was ever started" in line(run("doctor", "--home", str(home)), "local service")
    preconditions.make_home(home)
    well(service)
    with preconditions.take_home(home):
        (home / "token").write_text("sk_" + 40 * "a")
        (home / "url").write_text(service.url)
        result = run("doctor", "--home", str(home))
    assert result.exit_code == 0
    assert f"It runs in {home} (process {os.getpid()})" in line(result, "local service")
    ended = run("doctor", "--home", str(home))
    assert ended.exit_code == 1
    assert "was ended by force" in line(ended, "local service")
    (home / "url").unlink()
    assert "does not run" in line(run("doctor", "--home", str(home)), "local service")
    monkeypatch.setattr(preconditions, "MIN_FREE_BYTES", 2**62)
    assert "failed local disk" in line(run("doctor", "--home", str(home)), "local disk")
