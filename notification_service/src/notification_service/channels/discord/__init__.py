"""Discord, through a channel's webhook."""

from notification_service.channels.discord.channel import DiscordChannel

CHANNEL = DiscordChannel
