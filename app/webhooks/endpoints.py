"""/webhooks: receivers are named, changed and tested; deliveries are listed and sent again."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, HttpUrl
from sqlalchemy.orm import Session

from app.http.access import ReaderOf, SubmitterOf
from app.http.bodies import parsed, read_body
from app.http.paging import CursorOf, LimitOf
from app.http.parts import Parts, PartsOf
from app.http.problems import declared
from app.webhooks import service
from app.webhooks.models import DeliveryRow
from app.webhooks.schemas import (
    NewWebhook,
    WebhookChange,
    created_webhook_resource,
    delivery_resource,
    webhook_resource,
)
from stillhouse.contract.failures import (
    InvalidCursorError,
    InvalidRequestError,
    NotFoundError,
    TooManyWebhooksError,
    UnauthenticatedError,
    WebhookDisabledError,
    WebhookUrlRefusedError,
)
from stillhouse.contract.resources import Page
from stillhouse.contract.webhooks import CreatedWebhook, Delivery, DeliveryStatus, Webhook

router = APIRouter(tags=["webhooks"])

Model = TypeVar("Model", bound=BaseModel)
_MAX_BODY = 8192
_MAX_OVERLAP_HOURS = 7 * 24
_HOUR = 3600.0

OverlapOf = Annotated[float, Query(
    ge=0, le=_MAX_OVERLAP_HOURS,
    description="How long deliveries are signed with the old secret too. 0 for one that others know.",
)]
StatusOf = Annotated[DeliveryStatus | None, Query(description="Only these.")]


def _body(model: type[BaseModel]) -> dict[str, Any]:
    reference = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"requestBody": {"required": True, "content": {"application/json": reference}}}


async def _read(request: Request, model: type[Model]) -> Model:
    return parsed(model, await read_body(request, _MAX_BODY, InvalidRequestError))


async def _new_webhook(request: Request) -> NewWebhook:
    return await _read(request, NewWebhook)


async def _change(request: Request) -> WebhookChange:
    return await _read(request, WebhookChange)


def _check(parts: Parts, url: HttpUrl) -> None:
    service.check_url(str(url), url.host or "", allow_private=parts.settings.webhook_allow_private)


@router.post(
    "/webhooks", status_code=201, openapi_extra=_body(NewWebhook),
    responses=declared(UnauthenticatedError, InvalidRequestError, WebhookUrlRefusedError, TooManyWebhooksError),
)
def create_webhook(
    caller: SubmitterOf, parts: PartsOf, response: Response, wanted: Annotated[NewWebhook, Depends(_new_webhook)]
) -> CreatedWebhook:
    """Have events of your jobs sent to a URL. The secret that signs them is in this answer only."""
    _check(parts, wanted.url)
    with parts.db.writing() as session:
        row = service.create(
            session, owner=caller.owner, url=str(wanted.url), events=wanted.events, name=wanted.name
        )
    response.headers["Location"] = f"/webhooks/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return created_webhook_resource(row)


@router.get("/webhooks", responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError))
def list_webhooks(caller: ReaderOf, parts: PartsOf, cursor: CursorOf = None, limit: LimitOf = 50) -> Page[Webhook]:
    """List webhooks, newest first. Secrets are told only once, so they are not told here."""
    with parts.db.reading() as session:
        found = service.page(session, caller.owner, cursor=cursor, limit=limit)
    data = [webhook_resource(row) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


@router.get("/webhooks/{webhook_id}", responses=declared(UnauthenticatedError, NotFoundError))
def show_webhook(caller: ReaderOf, parts: PartsOf, webhook_id: str) -> Webhook:
    """Tell how a webhook stands: whether it is enabled, and since when it fails."""
    with parts.db.reading() as session:
        return webhook_resource(service.find(session, caller.owner, webhook_id))


@router.patch(
    "/webhooks/{webhook_id}", openapi_extra=_body(WebhookChange),
    responses=declared(UnauthenticatedError, InvalidRequestError, NotFoundError, WebhookUrlRefusedError),
)
def change_webhook(
    caller: SubmitterOf, parts: PartsOf, webhook_id: str, wanted: Annotated[WebhookChange, Depends(_change)]
) -> Webhook:
    """Change a webhook, or enable it again. What waits to be sent goes to the new URL."""
    values = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    if "url" in values:
        _check(parts, wanted.url)
        values["url"] = str(wanted.url)
    with parts.db.writing() as session:
        return webhook_resource(service.change(session, caller.owner, webhook_id, values))


@router.delete("/webhooks/{webhook_id}", status_code=204, responses=declared(UnauthenticatedError, NotFoundError))
def delete_webhook(caller: SubmitterOf, parts: PartsOf, webhook_id: str) -> None:
    """Delete a webhook and its deliveries. What is being sent at this moment still arrives."""
    with parts.db.writing() as session:
        service.remove(session, caller.owner, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/rotate",
    responses=declared(UnauthenticatedError, InvalidRequestError, NotFoundError),
)
def rotate_secret(
    caller: SubmitterOf, parts: PartsOf, response: Response, webhook_id: str, overlap_hours: OverlapOf = 24.0
) -> CreatedWebhook:
    """Take a new secret, which is in this answer only. For a while deliveries are signed with both."""
    with parts.db.writing() as session:
        row = service.rotate(session, caller.owner, webhook_id, _HOUR * overlap_hours)
    response.headers["Cache-Control"] = "no-store"
    return created_webhook_resource(row)


@router.post(
    "/webhooks/{webhook_id}/test", status_code=202,
    responses=declared(UnauthenticatedError, NotFoundError, WebhookDisabledError),
)
def test_webhook(caller: SubmitterOf, parts: PartsOf, webhook_id: str) -> Delivery:
    """Send an event of type `webhook.test`, once. Its delivery tells how the receiver answered."""
    with parts.db.writing() as session:
        delivery = _told(session, service.test(session, caller.owner, webhook_id))
    parts.announcer.announce(webhook_id)
    return delivery


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    responses=declared(UnauthenticatedError, InvalidRequestError, InvalidCursorError, NotFoundError),
)
def list_deliveries(
    caller: ReaderOf, parts: PartsOf, webhook_id: str, status: StatusOf = None, cursor: CursorOf = None,
    limit: LimitOf = 50,
) -> Page[Delivery]:
    """List what was and what is to be sent to a webhook, newest first, with every attempt."""
    with parts.db.reading() as session:
        service.find(session, caller.owner, webhook_id)
        found = service.deliveries(session, webhook_id, status=status, cursor=cursor, limit=limit)
        attempts = service.attempts(session, found.rows)
    data = [delivery_resource(row, attempts.get(row.id, ())) for row in found.rows]
    return Page(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202,
    responses=declared(UnauthenticatedError, NotFoundError, WebhookDisabledError),
)
def redeliver(caller: SubmitterOf, parts: PartsOf, webhook_id: str, delivery_id: str) -> Delivery:
    """Send a delivery once more, at once, under the same `webhook-id`."""
    with parts.db.writing() as session:
        delivery = _told(session, service.redeliver(session, caller.owner, webhook_id, delivery_id))
    parts.announcer.announce(webhook_id)
    return delivery


def _told(session: Session, row: DeliveryRow) -> Delivery:
    return delivery_resource(row, service.attempts(session, [row]).get(row.id, ()))
