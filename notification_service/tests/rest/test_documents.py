"""Where the documents are served, and to whom (contract section 3; requirement G04)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

PAGES = ("/api/openapi.json", "/api/asyncapi.json", "/api/docs")


@asynccontextmanager
async def visiting(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://herald.test") as client:
        yield client


async def test_both_contracts_and_the_page_are_served(api_app: FastAPI) -> None:
    async with visiting(api_app) as client:
        openapi, asyncapi, page = [await client.get(path) for path in PAGES]

    assert openapi.json() == api_app.openapi()
    assert (asyncapi.status_code, asyncapi.json()["asyncapi"]) == (200, "3.0.0")
    assert asyncapi.json()["info"]["version"] == openapi.json()["info"]["version"]
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_the_page_needs_no_other_host(api_app: FastAPI) -> None:
    async with visiting(api_app) as client:
        page = (await client.get("/api/docs")).text
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(addresses) == 3
        for address in addresses:
            assert address.startswith("/api/docs/assets/"), address
            assert len((await client.get(address)).content) > 1_000, address
    assert not re.search(r"https?://", page)


async def test_a_trailing_slash_is_accepted(api_app: FastAPI) -> None:
    async with visiting(api_app) as client:
        for path in PAGES:
            assert (await client.get(f"{path}/")).status_code == 200, path


@pytest.mark.req("G04")
@pytest.mark.parametrize("path", [*PAGES, "/metrics"])
async def test_in_production_they_need_the_internal_key(production_app: FastAPI, internal_key: str, path: str) -> None:
    async with visiting(production_app) as client:
        without = await client.get(path)
        wrong = await client.get(path, headers={"X-Internal-Key": "w" * 32})
        right = await client.get(path, headers={"X-Internal-Key": internal_key})

    assert (without.status_code, wrong.status_code, right.status_code) == (401, 401, 200)
    assert without.json()["code"] == "not_authenticated"
    assert without.headers["www-authenticate"] == "Bearer"


@pytest.mark.req("G04")
async def test_a_trailing_slash_does_not_open_them(production_app: FastAPI) -> None:
    async with visiting(production_app) as client:
        for path in (*PAGES, "/health/channels"):
            assert (await client.get(f"{path}/")).status_code == 401, path
            assert (await client.get(path)).status_code == 401, path
