from __future__ import annotations

from django.db import models
from typing_extensions import override


class RateCount(models.Model):
    """How often something happened since its window opened. One row per limit and key; keys are hashed (A17, G01)."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.IntegerField()
    window_ends_ms = models.BigIntegerField(db_index=True, help_text="Milliseconds since 1970.")

    @override
    def __str__(self) -> str:
        return f"{self.count} until {self.window_ends_ms}"
