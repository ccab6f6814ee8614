"""Push to phones through Firebase Cloud Messaging."""

from notification_service.channels.push.channel import PushChannel

CHANNEL = PushChannel
