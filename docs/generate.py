#!/usr/bin/env python3
"""Write the parts of the documentation that are made from the code, or check that they, and all links, are right.

A page marks such a part by two comments::

    <!-- made from the code: settings-auth -->
    ...
    <!-- end -->

`make docs` writes, `make docs-check` checks: parts, links, lists of codes, and that every decision that the code cites
exists.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tables import ROOT, make_decision_list, make_page_list, make_shared_parts, read_parts

DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- made from the code: (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CITED = re.compile(r"(?:docs/decisions/|ADR )(\d{4})")
SECTIONS = ("Context", "Decision", "Consequences")


def main() -> None:
    """Write or check; the exit code is 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something is out of date")
    options = parser.parse_args()
    with ThreadPoolExecutor() as pool:
        services = pool.map(read_parts, ("auth", "notification"))
        parts = make_shared_parts() | {"decisions": make_decision_list(), "pages": make_page_list()}
        for each in services:
            parts |= each
    problems = list(update_pages(parts, check=options.check))
    problems += check_links()
    problems += check_decisions()
    problems += check_codes(parts)
    for problem in problems:
        print(f"docs     | {problem}")  # noqa: T201 - talks to a person at a terminal
    sys.exit(1 if problems else 0)


def pages() -> list[Path]:
    """Every page a reader may open."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]


def update_pages(parts: dict[str, str], *, check: bool) -> Iterator[str]:
    """Put each part where a page wants it."""
    used = set()
    for page in pages():
        text = page.read_text()
        for found in PART.finditer(text):
            used.add(found["name"])
            if found["name"] not in parts:
                yield f"{page.relative_to(ROOT)}: there is no part called {found['name']}"
        made = PART.sub(lambda found: found[1] + parts.get(found["name"], "").strip() + "\n" + found[4], text)
        if made == text:
            continue
        if check:
            yield f"{page.relative_to(ROOT)} is out of date: run make docs"
        else:
            page.write_text(made)
    for name in sorted(parts.keys() - used):
        if not name.startswith("errors-"):
            yield f"no page shows the part {name}"


def check_links() -> Iterator[str]:
    """Links to files and headings of this repository must lead somewhere."""
    for page in pages():
        for found in LINK.finditer(FENCE.sub("", page.read_text())):
            target, _, anchor = found["target"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            path = (page.parent / target).resolve() if target else page
            where = f"{page.relative_to(ROOT)}: {found['target']}"
            if not path.exists():
                yield f"{where} leads nowhere"
            elif anchor and path.suffix == ".md" and anchor not in headings(path):
                yield f"{where}: there is no such heading"


def headings(page: Path) -> set[str]:
    """Anchors of a page, as the usual viewers make them."""
    lines = FENCE.sub("", page.read_text()).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def check_decisions() -> Iterator[str]:
    """Records have their parts and one number each; what the code cites exists."""
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    numbers = [record.name[:4] for record in records]
    for number in {number for number in numbers if numbers.count(number) > 1}:
        yield f"docs/decisions: {number} is used twice"
    for record in records:
        text = record.read_text()
        where = record.relative_to(ROOT)
        if not re.match(rf"# {record.name[:4]}\.? \S", text):
            yield f"{where} needs a title with its number"
        for section in SECTIONS:
            if not re.search(rf"^## {section}$", text, re.MULTILINE):
                yield f"{where} has no section {section}"
        if not re.search("alternatives|compared|instead of", text, re.IGNORECASE):
            yield f"{where} does not say what it was compared with"
    sources = [
        path
        for folder in ("auth_service", "notification_service", "shared_contracts", "deploy", "clients")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
    ]
    for path in sources:
        for number in CITED.findall(path.read_text()):
            if number not in numbers:
                yield f"{path.relative_to(ROOT)} cites decision {number}, which does not exist"


def check_codes(parts: dict[str, str]) -> Iterator[str]:
    """Every error code and every reason is explained in errors.md, with the statuses it comes with."""
    from shared_contracts.error_codes import ErrorCode, Reason  # noqa: PLC0415 - after the pages, which need nothing

    codes, _, reasons = (DOCS / "errors.md").read_text().partition("\n## Reasons\n")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*)", codes, re.MULTILINE))
    explained = re.findall(r"^\| `([a-z_]+)` \|", reasons, re.MULTILINE)
    for words, known in ((rows.keys(), set(ErrorCode)), (set(explained), set(Reason))):
        for word in sorted(known - words):
            yield f"docs/errors.md does not explain {word}"
        for word in sorted(words - known):
            yield f"docs/errors.md explains {word}, which does not exist"
    statuses: dict[str, set[int]] = {}
    for name in ("errors-auth", "errors-notification"):
        for code, found in json.loads(parts[name]).items():
            statuses.setdefault(code, set()).update(found)
    for code, found in sorted(statuses.items()):
        written = {int(status) for status in re.findall(r"\d{3}", rows.get(code, ""))}
        if not found <= written:
            yield f"docs/errors.md: {code} comes with status {sorted(found)}, the page says {sorted(written)}"


if __name__ == "__main__":
    main()
