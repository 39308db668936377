"""The OpenAPI document: what FastAPI finds out, plus the models that endpoints read by themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from app.http.links import add_links
from app.http.problems import MEDIA_TYPE
from app.jobs.schemas import JobChange
from app.keys.schemas import NewKey, Rotation
from app.webhooks.schemas import NewWebhook, WebhookChange
from stillhouse.contract.events import RecordedEvent
from stillhouse.contract.resources import Problem
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import ACTIONS, TRANSITIONS
from stillhouse.contract.webhooks import WebhookMessage

_DESCRIPTION = """
Compress models by knowledge distillation: upload a teacher and data, submit a job, watch it, download the student.

Every error is `application/problem+json` (RFC 9457) with a stable `code`. Lists are paged by opaque cursors.
Values of `status`, `phase` and `type` may be added to; clients must not fail on ones that they do not know.
"""
_REF = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Have the app serve this document as /openapi.json."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    schemas = document["components"]["schemas"]
    models: tuple[type[BaseModel], ...] = (
        JobChange, JobSpec, NewKey, NewWebhook, Problem, RecordedEvent, Rotation, WebhookChange, WebhookMessage,
    )
    for model in models:
        schema = model.model_json_schema(ref_template=_REF, mode="validation")
        schemas.update({**schema.pop("$defs", {}), model.__name__: schema})
    _forget_foreign_errors(document)
    add_links(document)
    schemas["Status"]["x-transitions"] = {status: sorted(following) for status, following in TRANSITIONS.items()}
    schemas["Status"]["x-actions"] = {status: sorted(actions) for status, actions in ACTIONS.items()}
    return document


def _forget_foreign_errors(document: dict[str, Any]) -> None:
    """Drop the framework's own form of an invalid request: it is not what this service answers."""
    for operations in document["paths"].values():
        for operation in operations.values():
            invalid = operation["responses"].get("422")
            if invalid is not None and MEDIA_TYPE not in invalid["content"]:
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
