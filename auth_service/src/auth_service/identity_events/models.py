from __future__ import annotations

from django.db import models
from typing_extensions import override

from auth_service import clock
from shared_contracts.ids import new_id


class RevisionCounter(models.Model):
    """One row: the revision of the last event. Its lock makes the order of commits the order of revisions."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    value = models.BigIntegerField(default=0)

    @override
    def __str__(self) -> str:
        return str(self.value)


class OutboxEvent(models.Model):
    """One identity event, written in the transaction of the change it tells of, published afterwards by the relay."""

    revision = models.BigIntegerField(primary_key=True)
    event_id = models.UUIDField(default=new_id)
    type = models.CharField(max_length=64)
    tenant = models.CharField(max_length=63)
    subject_id = models.UUIDField(null=True, help_text="The user it is about: erasing them finds it.")
    data = models.JSONField()
    occurred_at = models.DateTimeField(default=clock.now)
    published_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(fields=["revision"], condition=models.Q(published_at=None), name="outbox_pending"),
            models.Index(fields=["subject_id"], name="outbox_subject"),
            models.Index(fields=["published_at"], name="outbox_published"),
        )

    @override
    def __str__(self) -> str:
        return f"{self.revision} {self.type}"


class Lease(models.Model):
    """Which process may do a thing that only one may do at a time. It lapses by itself when its holder is gone."""

    name = models.CharField(max_length=40, primary_key=True)
    holder = models.CharField(max_length=80)
    expires_at = models.DateTimeField()

    @override
    def __str__(self) -> str:
        return f"{self.name}: {self.holder} until {self.expires_at}"
