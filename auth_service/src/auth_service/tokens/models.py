from __future__ import annotations

from django.db import models
from typing_extensions import override

from auth_service import clock
from auth_service.sessions.models import Session
from shared_contracts.ids import new_id


class SocketTicket(models.Model):
    """Opens one socket once, in place of a token that a browser would have to put into an address (D03)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    ticket_hash = models.CharField(max_length=64, unique=True)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="tickets")
    claims = models.JSONField(help_text="Those of the access token it was bought with.")
    expires_at = models.DateTimeField(db_index=True)
    redeemed_at = models.DateTimeField(null=True)

    @override
    def __str__(self) -> str:
        return f"ticket {self.id}"


class GlobalCutOff(models.Model):
    """One row at most: every token issued before it is refused, whoever it belongs to."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    tokens_not_before = models.DateTimeField(default=clock.now)

    @override
    def __str__(self) -> str:
        return f"everything before {self.tokens_not_before}"
