"""Telegram, through a bot."""

from notification_service.channels.telegram.channel import TelegramChannel

CHANNEL = TelegramChannel
