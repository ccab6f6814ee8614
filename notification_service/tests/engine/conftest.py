from __future__ import annotations

import pytest
from house import House, make_house
from service import Service


@pytest.fixture
def house(service: Service) -> House:
    return make_house(service)
