"""Templates over REST and in what people read: languages, versions, preview, the gate (X-14, F01 to F03, C06)."""

from __future__ import annotations

from typing import Any

import pytest
from house import House
from prometheus_client import REGISTRY

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/event-types/order.shipped/templates"


async def put(house: House, channel: str, locale: str, status: int = 200, **texts: Any) -> Any:
    return await house.ask("PUT", f"{PATH}/{channel}/{locale}", house.admin, texts, status=status)


@pytest.mark.req("X-14")
async def test_a_new_type_works_at_once_with_templates_of_its_own(house: House) -> None:
    ada = house.person()
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    await house.make_type(description="On its way.", data_schema=schema, channels=["in_app", "email"])
    found = await house.ask("GET", PATH, house.admin)
    assert [(each["channel"], each["locale"], each["version"]) for each in found["items"]] == [
        ("email", "en", 1),
        ("in_app", "en", 1),
    ]
    await house.send(ada, data={"order_id": "1042"})
    (item,) = await house.inbox(ada)
    assert (item["title"], item["body"]) == ("Order shipped", "On its way.\nOrder id: 1042")


async def test_everybody_reads_their_own_language(house: House) -> None:
    people = {
        locale: house.person(locale=locale, timezone="America/Sao_Paulo")
        for locale in ("pt-BR", "pt-PT", "de-AT", "fr", "en-GB")
    }
    await house.make_type()
    await put(house, "in_app", "en", title="Hi {{ data.name }}", body="{{ data.at | date }}")
    await put(house, "in_app", "pt", title="Olá {{ data.name }}", body="{{ data.at | datetime }}")
    await put(
        house,
        "in_app",
        "pt-br",
        title="Oi {{ data.name }}",
        body="{{ data.n | plural(one='# item', other='# itens') }}",
    )
    await put(house, "in_app", "de", title="Hallo {{ data.name }}", body="{{ data.n | number }}")
    data = {"name": "Ada", "n": 1234, "at": "2026-03-01T01:30:00Z"}
    sent = await house.send(*people.values(), data=data)
    read = {}
    for locale, person in people.items():
        (item,) = await house.inbox(person)
        read[locale] = (item["title"], item["body"])
        single = await house.ask("GET", f"/inbox/{sent}", person)
        assert (single["title"], single["body"]) == read[locale]
        synced = await house.ask("GET", "/inbox/sync", person)
        assert synced["items"][0]["title"] == item["title"]
    assert read == {
        "pt-BR": ("Oi Ada", "1.234 itens"),
        "pt-PT": ("Olá Ada", "28/02/2026, 22:30:00"),
        "de-AT": ("Hallo Ada", "1.234"),
        "fr": ("Hi Ada", "Feb 28, 2026"),
        "en-GB": ("Hi Ada", "28 Feb 2026"),
    }
    chosen = house.person(locale="fr")
    await house.send(chosen, data=data)
    await house.prefer(chosen, locale="de")
    await house.send(chosen, data=data)
    assert [item["title"] for item in await house.inbox(chosen)] == ["Hallo Ada", "Hi Ada"]
    forced = house.person(locale="fr")
    await house.send(forced, data=data, locale="pt")
    assert (await house.inbox(forced))[0]["title"] == "Olá Ada"


async def test_a_text_that_names_the_user_is_each_users_own(house: House) -> None:
    ada, ben = house.person(username="ada"), house.person(username="ben")
    await house.make_type()
    await put(house, "in_app", "en", title="Hello {{ user.username }}", body="b")
    await house.send(ada, ben)
    assert [(await house.inbox(each))[0]["title"] for each in (ada, ben)] == ["Hello ada", "Hello ben"]


async def test_what_the_request_says_itself_is_not_rendered(house: House) -> None:
    ada = house.person()
    await house.make_type()
    await put(house, "in_app", "en", title="T", body="B {{ data.x }}")
    await house.send(ada, title="{{ data.secret }}", data={"x": 1})
    (item,) = await house.inbox(ada)
    assert (item["title"], item["body"]) == ("{{ data.secret }}", "B 1")


async def test_versions_and_roll_back(house: House) -> None:
    await house.make_type()
    first = await put(house, "in_app", "en", title="One", body="b")
    second = await put(house, "in_app", "en", title="Two", body="b")
    assert second["version"] == first["version"] + 1
    versions = await house.ask("GET", f"{PATH}/in_app/en/versions", house.admin)
    assert [each["title"] for each in versions["items"]][:2] == ["Two", "One"]
    body = {"version": first["version"]}
    back = await house.ask("POST", f"{PATH}/in_app/en/rollback", house.admin, body)
    assert (back["title"], back["version"]) == ("One", second["version"] + 1)
    await house.ask("POST", f"{PATH}/in_app/en/rollback", house.admin, {"version": 99}, status=404)
    ada = house.person()
    await house.send(ada)
    assert (await house.inbox(ada))[0]["title"] == "One"


@pytest.mark.req("F03")
async def test_preview_is_by_the_code_that_sends(house: House) -> None:
    ada = house.person(username="ada", timezone="Europe/Berlin")
    await house.make_type()
    await put(
        house, "email", "de", title="Für {{ user.username }}", body="{{ data.at | time }}", html="<b>{{ data.x }}</b>"
    )
    given = {"data": {"at": "2026-07-01T10:00:00Z", "x": "<i>"}, "user_id": str(ada.id)}
    # The mirror learns of people when they are first named.
    await house.send(ada)
    found = await house.ask("POST", f"{PATH}/email/de-CH/preview", house.admin, given)
    assert found == {"title": "Für ada", "body": "12:00", "html": "<b>&lt;i&gt;</b>", "locale": "de"}
    wrong = await house.ask("POST", f"{PATH}/email/de/preview", house.admin, {"data": {"x": 1}}, status=422)
    assert wrong["code"] == "missing_variable"
    draft = {"data": {"x": 1}, "title": "{{ data.x }}", "body": "d"}
    assert (await house.ask("POST", f"{PATH}/email/de/preview", house.admin, draft))["title"] == "1"


@pytest.mark.req("F01")
@pytest.mark.parametrize(
    "text",
    [
        "{{ data.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ data['__class__'] }}",
        "{{ data|attr('__class__') }}",
        "{{ '%s'|format(data) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner }}",
        "{{ namespace() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% macro a() %}{% endmacro %}",
        "{{ data.x.format(1) }}",
        "{% set x = 1 %}",
        "{{ self }}",
        "{{ config }}",
        "{% for x in range(10) %}{% endfor %}",
        "{{ 'a' * 1000000 }}",
        "{{ data.l | map(attribute='__class__') }}",
        "{{ unclosed",
    ],
)
async def test_templates_beyond_the_language_are_refused_when_they_are_stored(house: House, text: str) -> None:
    await house.make_type()
    refused = await put(house, "in_app", "en", 422, title="t", body=text)
    assert (refused["code"], refused["errors"][0]["field"]) == ("template_error", "body")
    found = await house.ask("GET", f"{PATH}/in_app/en", house.admin)
    assert found["version"] == 1


@pytest.mark.req("F02")
async def test_a_render_bomb_is_cut_and_the_worker_lives(house: House) -> None:
    ada = house.person()
    await house.make_type()
    loops = "{% for a in data.l %}" * 3 + "{{ data.s }}" + "{% endfor %}" * 3
    await put(house, "in_app", "en", title="t", body=loops)
    sent = await house.send(ada, data={"l": list(range(500)), "s": "x" * 10_000})
    assert (await house.trace(sent, ada))["reason"] == "template_error"
    await put(house, "in_app", "en", title="t", body="fine")
    await house.send(ada)
    assert [item["body"] for item in await house.inbox(ada)] == ["fine"]


@pytest.mark.req("X-14")
async def test_a_type_is_not_published_while_its_default_locale_lacks_a_template(house: House) -> None:
    ada = house.person(locale="de")
    await house.make_type(channels=["in_app", "email"])
    await put(house, "in_app", "de", title="Hallo", body="b")
    await house.ask("DELETE", f"{PATH}/in_app/en", house.admin, status=204)
    refused = await house.ask("PATCH", "/event-types/order.shipped", house.admin, {"is_active": True}, status=422)
    assert (refused["code"], refused["errors"][0]["field"]) == ("missing_default_template", "templates.in_app.en")
    await house.ask("PATCH", "/event-types/order.shipped", house.admin, {"is_active": False})
    await put(house, "in_app", "en", title="Hello", body="b")
    await house.ask("PATCH", "/event-types/order.shipped", house.admin, {"is_active": True})
    # Another locale than the default one may go: its readers fall back.
    await house.ask("DELETE", f"{PATH}/in_app/de", house.admin, status=204)
    before = REGISTRY.get_sample_value("template_fallbacks_total", {"channel": "in_app"}) or 0
    await house.send(ada)
    assert (await house.inbox(ada))[0]["title"] == "Hello"
    # Counted, so that a missing translation is noticed; others in this process may have fallen back, too.
    assert (REGISTRY.get_sample_value("template_fallbacks_total", {"channel": "in_app"}) or 0) >= before + 1


@pytest.mark.req("C06")
async def test_only_those_who_may_write_templates_see_and_change_them(house: House) -> None:
    await house.make_type()
    for role in ("user", "publisher", "staff"):
        person = house.person(role)
        await house.ask("GET", PATH, person, status=403)
        await house.ask("PUT", f"{PATH}/in_app/en", person, {"title": "t", "body": "b"}, status=403)
        await house.ask("DELETE", f"{PATH}/in_app/en", person, status=403)
        await house.ask("POST", f"{PATH}/in_app/en/preview", person, {"data": {}}, status=403)
        await house.ask("PATCH", "/event-types/order.shipped", person, {"name": "x"}, status=403)
    stranger = house.service.add_person("admin", tenant=house.service.add_tenant())
    await house.ask("GET", f"{PATH}/in_app/en", stranger, status=404)
    await house.ask("PUT", f"{PATH}/in_app/en", stranger, {"title": "t", "body": "b"}, status=404)


async def test_data_is_checked_on_both_intakes(house: House) -> None:
    ada = house.person()
    await house.make_type(data_schema={"type": "object", "required": ["order_id"]})
    body = {"event_type": "order.shipped", "recipients": {"users": [str(ada.id)]}, "data": {}}
    refused = await house.ask("POST", "/notifications/send", house.shop, body, status=422)
    assert refused["errors"][0]["field"] == "data"
    assert await house.inbox(ada) == []
    await house.ask(
        "POST", "/event-types", house.admin, {"code": "x", "name": "x", "data_schema": {"type": 7}}, status=422
    )


async def test_unknown_types_are_refused_or_made_on_the_fly(house: House) -> None:
    ada = house.person()
    body = {"event_type": "cart.left", "recipients": {"users": [str(ada.id)]}}
    refused = await house.ask("POST", "/notifications/send", house.shop, body, status=422)
    assert refused["code"] == "unknown_event_type"
    await house.ask("PATCH", "/settings", house.admin, {"unknown_event_types": "create"})
    await house.send(ada, event_type="cart.left")
    assert (await house.inbox(ada))[0]["title"] == "Cart left"
    made = await house.ask("GET", "/event-types/cart.left", house.admin)
    assert (made["category"], made["version"]) == ("cart", 1)


async def test_branding_and_layout(house: House) -> None:
    await house.make_type()
    settings = await house.ask(
        "PATCH", "/settings", house.admin, {"branding": {"name": "Shop"}, "default_locale": "de-at"}
    )
    assert (settings["branding"], settings["default_locale"]) == ({"name": "Shop"}, "de-AT")
    await put(house, "in_app", "de", title="{{ tenant.name }}", body="b")
    ada = house.person(locale="fi")
    await house.send(ada)
    assert (await house.inbox(ada))[0]["title"] == "Shop"
    bad = await house.ask("PATCH", "/settings", house.admin, {"html_layout": "{{ x() }}"}, status=422)
    assert bad["code"] == "template_error"
    await house.ask("PATCH", "/settings", house.person("staff"), {"branding": {}}, status=403)
