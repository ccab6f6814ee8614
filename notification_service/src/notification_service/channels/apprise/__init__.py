"""Every other service that Apprise knows."""

from notification_service.channels.apprise.channel import AppriseChannel

CHANNEL = AppriseChannel
