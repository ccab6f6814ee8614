"""Web Push to browsers (RFC 8030, 8291, 8292)."""

from notification_service.channels.web_push.channel import WebPushChannel

CHANNEL = WebPushChannel
