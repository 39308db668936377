"""Commands about webhooks."""

from typing import Annotated

import typer
from rich.markup import escape

from stillhouse import wording
from stillhouse.cli.connecting import Json, Key, Url, connected
from stillhouse.cli.output import age, answers, plain_table, print_json, tell
from stillhouse.contract.webhooks import CreatedWebhook, Delivery

webhooks = typer.Typer(no_args_is_help=True, help="Have events of jobs sent to a URL.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id, from `stillhouse webhooks list`.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Only this event, such as job.succeeded; may be repeated.")
]


@webhooks.command("list")
def list_webhooks(*, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """List webhooks, without their secrets."""
    with connected(url, key) as client:
        found = list(client.webhooks.list())
    if as_json:
        print_json(found)
        return
    table = plain_table("WEBHOOK", "STATUS", "EVENTS", "CREATED", "URL", "NAME")
    for item in found:
        status = "[red]disabled[/]" if not item.enabled else "[yellow]failing[/]" if item.failing_since else "enabled"
        events = ", ".join(map(str, item.events)) or "all"
        table.add_row(
            item.id, status, escape(events), age(item.created_at), escape(item.url),
            escape(item.name or wording.MISSING),
        )
    answers().print(table)


@webhooks.command("create")
def create_webhook(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The https:// URL that events are posted to.")],
    *,
    event: Events = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have events sent to a URL. The secret that signs them is printed this once."""
    with connected(url, key) as client:
        _print_secret(client.webhooks.create(target, events=event or (), name=name), as_json=as_json)


@webhooks.command("rotate")
def rotate(
    webhook_id: WebhookId,
    *,
    overlap_hours: Annotated[float, typer.Option(help="How long the old secret signs too.")] = 24.0,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Take a new secret. It is printed this once."""
    with connected(url, key) as client:
        _print_secret(client.webhooks.rotate(webhook_id, overlap_hours=overlap_hours), as_json=as_json)


@webhooks.command("update")
def update(
    webhook_id: WebhookId,
    *,
    target: Annotated[str | None, typer.Option(help="Another URL.")] = None,
    event: Events = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it is sent anything.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Change a webhook, or enable it again."""
    with connected(url, key) as client:
        client.webhooks.update(webhook_id, url=target, events=event, name=name, enabled=enabled)
    tell(f"changed {escape(webhook_id)}")


@webhooks.command("delete")
def delete(webhook_id: WebhookId, *, url: Url = None, key: Key = None) -> None:
    """Delete a webhook and its deliveries."""
    with connected(url, key) as client:
        client.webhooks.delete(webhook_id)
    tell(f"deleted {escape(webhook_id)}")


@webhooks.command("test")
def send_test(webhook_id: WebhookId, *, as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """Send a test event."""
    with connected(url, key) as client:
        _print_sent(client.webhooks.test(webhook_id), as_json=as_json)


@webhooks.command("deliveries")
def deliveries(
    webhook_id: WebhookId,
    *,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List what was and is to be sent, newest first."""
    with connected(url, key) as client:
        found = list(client.webhooks.deliveries(webhook_id, status=status))
    if as_json:
        print_json(found)
        return
    table = plain_table("DELIVERY", "EVENT", "STATUS", "ATTEMPTS", "CREATED", "LAST WORD")
    for item in found:
        table.add_row(
            item.id, escape(str(item.type)), escape(str(item.status)), str(len(item.attempts)), age(item.created_at),
            escape(_last_word(item)),
        )
    answers().print(table)


@webhooks.command("redeliver")
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="Id, from `stillhouse webhooks deliveries`.")],
    *,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send a delivery once more, at once."""
    with connected(url, key) as client:
        _print_sent(client.webhooks.redeliver(webhook_id, delivery_id), as_json=as_json)


def _print_secret(made: CreatedWebhook, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    answers().print(made.secret)
    tell(f"webhook {made.id}; keep the secret, it is not shown again")


def _print_sent(delivery: Delivery, *, as_json: bool) -> None:
    if as_json:
        print_json(delivery)
        return
    answers().print(delivery.id)
    tell(f"stillhouse webhooks deliveries {delivery.webhook_id} tells how it was answered")


def _last_word(delivery: Delivery) -> str:
    last = next((attempt for attempt in reversed(delivery.attempts) if attempt.outcome), None)
    if last is None:
        return wording.MISSING
    return last.detail or str(last.outcome)
