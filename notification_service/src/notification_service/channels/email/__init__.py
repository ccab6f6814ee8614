"""E-mail over SMTP."""

from notification_service.channels.email.channel import EmailChannel

CHANNEL = EmailChannel
