"""What channels are given, made of what was loaded: the address, the message, and what templates need to know. Pure."""

from __future__ import annotations

from notification_service.channels.interface import Address, Message, reject
from notification_service.channels.links import Links
from notification_service.channels.load import Loaded
from notification_service.channels.ports import Pending, Recipient, Rendered, Unrenderable


def address_of(loaded: Loaded) -> Address:
    """Where it goes. There must be an address."""
    assert loaded.address is not None
    return Address(loaded.address, loaded.secret, loaded.delivery.contact_id)


def pending_of(loaded: Loaded, attempt: int) -> Pending:
    """For the gate and the renderer. The user must be there."""
    user = loaded.user
    recipient = Recipient(
        id=user.id,
        username=user.username,
        email=user.email,
        phone=user.phone,
        locale=user.locale,
        timezone=user.timezone,
        roles=tuple(user.roles or ()),
    )
    return Pending(loaded.delivery.id, loaded.notification, recipient, loaded.delivery.channel, attempt)


def message_of(loaded: Loaded, rendered: Rendered | Unrenderable, links: Links) -> Message:
    """What to say.

    Raises:
        SendFailed: The templates did not fit.
    """
    if isinstance(rendered, Unrenderable):
        raise reject(rendered.detail, reason=rendered.reason)
    notification, delivery = loaded.notification, loaded.delivery
    return Message(
        delivery_id=delivery.id,
        notification_id=notification.id,
        user_id=delivery.user_id,
        tenant=notification.tenant,
        event_type=notification.event_type,
        title=rendered.title,
        body=rendered.body,
        html=rendered.html,
        locale=rendered.locale,
        data=notification.data,
        actions=notification.actions,
        priority=str(notification.priority),
        category=notification.category,
        tags=notification.tags,
        collapse_key=notification.collapse_key,
        created_at=notification.created_at,
        expires_at=notification.expires_at,
        recipient_name=loaded.user.username,
        sender_name=notification.sender.name,
        links=links.for_delivery(
            user_id=delivery.user_id, tenant=notification.tenant, channel=delivery.channel, notification=notification
        ),
    )
