"""Signed JSON to an address of the user's choice."""

from notification_service.channels.webhook.channel import WebhookChannel

CHANNEL = WebhookChannel
