"""Webhooks, by the client."""

from collections.abc import Iterator, Sequence

from stillhouse.client.connection import Connection, pages, parsed
from stillhouse.contract.webhooks import CreatedWebhook, Delivery, Webhook, WebhookEvent


class Webhooks:
    """Receivers of events of an owner's jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Iterator[Webhook]:
        """Every webhook of this owner, newest first, without its secret."""
        return pages(self._connection, Webhook, "/webhooks", {})

    def create(
        self, url: str, *, events: Sequence[WebhookEvent | str] = (), name: str | None = None
    ) -> CreatedWebhook:
        """Have events sent to a URL; without `events`, every one. The secret is told this once."""
        body = {"url": url, "events": [str(event) for event in events]} | ({"name": name} if name else {})
        return parsed(CreatedWebhook, self._connection.request("POST", "/webhooks", json=body, repeatable=False))

    def get(self, webhook_id: str) -> Webhook:
        """One webhook."""
        return self._connection.read(Webhook, f"/webhooks/{webhook_id}")

    def update(
        self, webhook_id: str, *, url: str | None = None, events: Sequence[WebhookEvent | str] | None = None,
        name: str | None = None, enabled: bool | None = None,
    ) -> Webhook:
        """Change what is given; `enabled=True` has a webhook that was disabled sent events again."""
        told = None if events is None else [str(event) for event in events]
        given = {"url": url, "events": told, "name": name, "enabled": enabled}
        body = {field: value for field, value in given.items() if value is not None}
        return parsed(Webhook, self._connection.request("PATCH", f"/webhooks/{webhook_id}", json=body))

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook and its deliveries."""
        self._connection.request("DELETE", f"/webhooks/{webhook_id}")

    def rotate(self, webhook_id: str, *, overlap_hours: float = 24.0) -> CreatedWebhook:
        """A new secret, told this once; for so long deliveries are signed with the old one too."""
        params = {"overlap_hours": f"{overlap_hours:g}"}
        path = f"/webhooks/{webhook_id}/rotate"
        return parsed(CreatedWebhook, self._connection.request("POST", path, params=params, repeatable=False))

    def test(self, webhook_id: str) -> Delivery:
        """Send a test event."""
        return parsed(Delivery, self._connection.request("POST", f"/webhooks/{webhook_id}/test", repeatable=False))

    def deliveries(self, webhook_id: str, *, status: str | None = None) -> Iterator[Delivery]:
        """What was and is to be sent to a webhook, newest first, with every attempt."""
        return pages(self._connection, Delivery, f"/webhooks/{webhook_id}/deliveries", {"status": status})

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery once more, at once."""
        path = f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
        return parsed(Delivery, self._connection.request("POST", path))
