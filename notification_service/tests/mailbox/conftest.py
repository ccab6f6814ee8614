from __future__ import annotations

import pytest
from mail_box import Mail

from notification_service.db.engine import Database


@pytest.fixture
def mail(database: Database) -> Mail:
    return Mail(database)
