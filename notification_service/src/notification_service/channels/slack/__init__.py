"""Slack, through an incoming webhook."""

from notification_service.channels.slack.channel import SlackChannel

CHANNEL = SlackChannel
