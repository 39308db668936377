"""Every answer of the running API is one that its OpenAPI document tells of, whatever is asked in which order."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, HookContext, serializer
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.openapi import from_dict
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from app.jobs import life
from app.main import create_app
from app.settings import Settings
from stillhouse.contract.events import Measured, Planned
from stillhouse.contract.status import Phase as JobPhase
from tests.fixtures.files import idx
from tests.fixtures.plans import small_plan
from tests.fixtures.service import ADMIN_KEY, Service, bearer, progressed, running_service

# Whoever asks so gets no endless stream.
ACCEPT = "application/json, application/problem+json;q=0.9, */*;q=0.1"
# Of schemathesis' own strategies, now and then.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
BOUNDED: dict[str, Any] = {
    "derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck),
    "phases": (Phase.generate,),
}


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(database_url=f"sqlite:///{folder}/x.db", blob_url=f"file:{folder}/blobs"))
        return app.openapi()


def read_document(*modes: GenerationMode) -> BaseSchema:
    config = SchemathesisConfig(seed=1)
    config.projects.default.generation.update(
        modes=list(modes), allow_extra_parameters=False, with_security_parameters=False
    )
    # What was answered before must not steer what is asked next, or no run would be like another.
    config.projects.default.phases.fuzzing.extra_data_sources.responses = False
    return from_dict(document(), config=config)


serializer.alias("application/offset+octet-stream", "application/octet-stream")
anything = read_document(GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture(scope="module")
def service(
    sqlite_template: Path, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One service for all that is asked here: what was stored before must not matter."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "x.db").write_bytes(sqlite_template.read_bytes())
    with running_service(f"sqlite:///{folder / 'x.db'}", broker_url, folder) as running:
        yield running


@pytest.fixture(scope="module")
def known(service: Service) -> dict[str, list[str]]:
    """Ids that name something, by parameter: jobs that wait, that run and that have a model; plans; artifacts; keys."""
    files = {"bundle": b"PK bundle", "safetensors": b"weights", "onnx": b"graph", "report_html": b"<p>x</p>"}
    succeeded, running, queued = (service.submitted(name=name) for name in ("succeeded", "running", "queued"))
    service.succeed(service.claim(), files)
    claim = service.claim()
    service.record(claim, progressed(1), Measured(phase=JobPhase.DISTILLING, step=1, values={"loss": float("nan")}))
    planned = service.client.post("/plans", json=service.spec(), headers={"Prefer": "wait=0"}).json()["id"]
    life.plan(service.parts.db, service.claim("plans"), Planned(plan=small_plan()))
    key = service.client.post("/keys", json={"name": "known", "owner": "other"}).json()["id"]
    webhook = service.client.post("/webhooks", json={"url": "https://example.com/"}).json()["id"]
    delivery = service.client.post(f"/webhooks/{webhook}/test").json()["id"]
    begun = service.client.post("/uploads", headers={
        "Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": "kind ZGF0YQ==",
    })
    results = [file["artifact_id"] for file in service.client.get(f"/jobs/{succeeded}").json()["files"]]
    return {
        "job_id": [succeeded, running, queued], "plan_id": [planned], "key_id": [key],
        "webhook_id": [webhook], "delivery_id": [delivery], "upload_id": [begun.headers["Location"].rpartition("/")[2]],
        "artifact_id": [service.uploaded(idx([3])), *results],
    }


@pytest.fixture
def sender(service: Service) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({**bearer(ADMIN_KEY), "Accept": ACCEPT})
        yield session
    assert service.client.get("/jobs").status_code == 200  # else the answers above were refusals


@anything.parametrize()
@settings(max_examples=10, **BOUNDED)
def test_whatever_is_asked_the_answer_is_as_documented(
    case: Case[Any], service: Service, known: dict[str, list[str]], sender: requests.Session
) -> None:
    ask(case, service, sender)
    for name in [] if case.method == "DELETE" else case.path_parameters:
        for there in known[name]:
            case.path_parameters[name] = there
            ask(case, service, sender)


def ask(case: Case[Any], service: Service, sender: requests.Session) -> None:
    case.headers["Prefer"] = "wait=0"
    # What a schema cannot say may be wrong with what it allows: a spec may name an artifact that is not there.
    excluded: list[Any] = [positive_data_acceptance]
    if case.path.startswith("/uploads"):
        excluded.append(negative_data_rejection)  # tus answers 412 and 460 where other clients expect 400
    case.call_and_validate(base_url=f"http://127.0.0.1:{service.port}", session=sender, excluded_checks=excluded)


SPEC = {"name": "good"}
FILE = idx([3])
# Instead of what is invented, most often, as nobody guesses a file or the id of one.
GOOD_BODIES: dict[tuple[str, str], object] = {
    ("post", "/jobs"): SPEC, ("post", "/plans"): SPEC, ("post", "/artifacts"): FILE,
}


def asked(context: HookContext) -> tuple[str, str]:
    """Method and path that something is made up for."""
    assert context.operation is not None
    return context.operation.method, context.operation.path


def knowing() -> BaseSchema:
    """The document with strategies that know some good bodies."""
    schema = read_document(GenerationMode.POSITIVE)

    @schema.hook
    def flatmap_body(context: HookContext, body: object) -> st.SearchStrategy[object]:
        good = GOOD_BODIES.get(asked(context), body)
        return st.sampled_from([good, good, good, body])

    @schema.hook
    def flatmap_query(context: HookContext, query: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        good = {"kind": "data"} if asked(context) == ("post", "/artifacts") else query
        return st.sampled_from([good, good, good, query])

    return schema


@pytest.mark.parametrize("collection", ["artifacts", "jobs", "plans", "keys"])
def test_whatever_is_done_with_what_was_made_the_answer_is_as_documented(
    service: Service, sender: requests.Session, collection: str
) -> None:
    answered: set[tuple[str, str, int]] = set()
    owners = itertools.count()

    class Client(knowing().include(path_regex=f"^/{collection}").as_state_machine()):  # type: ignore[misc]  # made by schemathesis
        def setup(self) -> None:
            """Begin as an owner who has nothing but what a job needs: each run is like the first."""
            made = service.client.post("/keys", json={
                "name": "mine", "owner": f"owner-{next(owners)}", "scopes": ["read", "submit", "admin"],
            }).json()
            self.service = replace(service)
            self.service.client = service.client_with(made["secret"])
            self.headers = bearer(made["secret"])
            self.spec = self.service.spec()

        def teardown(self) -> None:
            self.service.client.close()

        def before_call(self, case: Case[Any]) -> None:
            case.headers["Prefer"] = "wait=0"
            if case.body == SPEC:
                case.body = self.spec

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:  # noqa: ARG002 - schemathesis' own
            return {"base_url": f"http://127.0.0.1:{service.port}", "session": sender, "headers": self.headers}

        def after_call(self, response: Response, case: Case[Any]) -> None:
            super().after_call(response, case)
            answered.add((case.method, case.operation.path, response.status_code))

        def validate_response(self, response: Response, case: Case[Any], **kwargs: Any) -> None:  # noqa: ANN401 - as above
            case.validate_response(
                response, excluded_checks=[positive_data_acceptance], recorder=self.recorder, transport_kwargs=kwargs
            )

    Client.run(settings=settings(max_examples=12, stateful_step_count=8, **BOUNDED))
    # Else nothing was made, or nothing done with it: which of it all was done is left to chance.
    assert {201, 202} & {status for _, path, status in answered if path == f"/{collection}"}
    followed = {(method, path) for method, path, status in answered if "{" in path and status not in {404, 422}}
    assert len(followed) >= 2
