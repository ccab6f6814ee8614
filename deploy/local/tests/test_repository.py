"""What holds for every file of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from compose_file import ROOT

MOST_LINES = 600
# One letter in brackets: the patterns do not find themselves.
FOREIGN = re.compile(r"--(extra-)?index[-]url|pyth[o]nhosted|registry[.]npmjs|/[h]ome/[a-z]+/|/[w]ork/(main|shared)")


def find_files(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    found = {str(path.relative_to(ROOT)): path.read_text(errors="ignore") for path in find_files()}
    assert len(found) > 500
    return found


def test_no_source_file_is_longer_than_anybody_reads(texts: dict[str, str]) -> None:
    sources = {name: text.count("\n") for name, text in texts.items() if name.endswith((".py", ".mjs", ".js", ".ts"))}
    assert {name: lines for name, lines in sources.items() if lines > MOST_LINES} == {}


def test_no_file_names_a_package_index_or_somebodys_machine(texts: dict[str, str]) -> None:
    assert [name for name, text in texts.items() if FOREIGN.search(text)] == []


def test_every_package_is_pinned_with_its_hash(texts: dict[str, str]) -> None:
    locks = {name: text for name, text in texts.items() if re.search(r"(^|/)requirements[^/]*(/|\.)[^/]*txt$", name)}
    assert locks
    for name, text in locks.items():
        packages = re.findall(r"^([A-Za-z0-9].*)\n(.*)$", text, re.MULTILINE)
        assert packages, name
        loose = [line for line, after in packages if "==" not in line or "--hash=sha256:" not in after]
        assert loose == [], name
