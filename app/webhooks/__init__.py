"""Webhooks: events of an owner's jobs, sent to addresses that the owner named."""
