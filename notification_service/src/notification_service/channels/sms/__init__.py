"""Text messages through the API of Twilio."""

from notification_service.channels.sms.channel import SmsChannel

CHANNEL = SmsChannel
