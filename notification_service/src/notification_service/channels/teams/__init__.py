"""Microsoft Teams, through the webhook of a workflow."""

from notification_service.channels.teams.channel import TeamsChannel

CHANNEL = TeamsChannel
