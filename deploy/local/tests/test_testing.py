"""Running suites: side by side and one after another, each output whole, failures and slow tests told."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

from herald_local import testing
from herald_local.testing import SUITES, Run, Suite, choose, look_again, run_suites, summarise

QUICK = """
import sys, time
def test_talks():
    for number in range(50):
        print("{name}", number, file=sys.__stderr__, flush=True)
        time.sleep(0.002)
"""


def make_suite(folder: Path, name: str, source: str, **environment: str) -> Suite:
    path = folder / name
    path.mkdir()
    (path / f"test_{name}.py").write_text(source)
    return Suite(name, (str(path),), environment)


def run(suites: list[Suite], *, side_by_side: int) -> list[Run]:
    return run_suites(suites, {}, ["-s"], side_by_side=side_by_side)


def test_outputs_of_suites_side_by_side_are_not_mixed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suites = [make_suite(tmp_path, name, QUICK.format(name=name)) for name in ("one", "two", "three")]
    runs = run(suites, side_by_side=2)
    output = capfd.readouterr().out
    assert {each.suite.name for each in runs} == {"one", "two", "three"}
    spoken = re.findall(r"\b(one|two|three) \d+$", output, re.MULTILINE)
    assert len(spoken) == 150
    changes = sum(1 for before, after in itertools.pairwise(spoken) if before != after)
    assert changes == 2
    assert summarise(runs, 1.0) == 0
    assert "3 suites in 1 s; all passed" in capfd.readouterr().out


def test_they_do_run_at_the_same_time(tmp_path: Path) -> None:
    # Each waits for the other's file: one after another they would wait in vain.
    source = """
import pathlib, time
def test_meets():
    folder = pathlib.Path({folder!r})
    (folder / {mine!r}).touch()
    deadline = time.monotonic() + 60
    while not (folder / {other!r}).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
"""
    suites = [
        make_suite(tmp_path, mine, source.format(folder=str(tmp_path), mine=f"{mine}.met", other=f"{other}.met"))
        for mine, other in (("one", "two"), ("two", "one"))
    ]
    assert not any(each.has_failed for each in run(suites, side_by_side=2))


def test_failures_slow_tests_and_environment_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = make_suite(
        tmp_path,
        "good",
        "import os, time\ndef test_slow():\n    time.sleep(0.3)\n    assert os.environ['WANTED'] == 'yes'\n",
        WANTED="yes",
    )
    bad = make_suite(tmp_path, "bad", "def test_fails():\n    assert False, 'on purpose'\n")
    empty = make_suite(tmp_path, "empty", "")
    runs = run([good, bad, empty], side_by_side=1)
    assert summarise(runs, 2.0) == 1
    output = capfd.readouterr().out
    assert "on purpose" in output
    assert "3 suites in 2 s; failed: ['bad']" in output
    assert re.search(r"0\.\d s +\S*test_good\.py::test_slow \(call, good\)", output)
    assert output.index("--- good passed") < output.index("--- bad begins")


def test_a_run_that_is_broken_off_ends_its_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = make_suite(tmp_path, "slow", "import time\ndef test_waits():\n    time.sleep(60)\n")
    begun: list[Run] = []
    start = testing.start_suite

    def note(*arguments: object) -> Run:
        if begun:
            raise KeyboardInterrupt
        begun.append(start(*arguments))  # type: ignore[arg-type]  # passed on
        return begun[0]

    monkeypatch.setattr(testing, "start_suite", note)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([slow, slow], side_by_side=2)
    assert begun[0].process.returncode is not None
    assert time.monotonic() - started < 50


def test_suites_are_chosen_by_name_or_family() -> None:
    assert [suite.name for suite in choose(["e2e"])] == ["e2e-postgresql", "e2e-sqlite"]
    assert {suite.name for suite in choose(["auth-sqlite", "contracts"])} == {"auth-sqlite", "contracts"}
    assert choose(None) == list(SUITES)
    assert len({suite.name for suite in SUITES}) == len(SUITES)
    # Each database has a suite of its own, and no test runs on both in one suite.
    databases = [suite.environment["HERALD_E2E_DATABASES"] for suite in SUITES if suite.family == "e2e"]
    assert sorted(databases) == ["postgresql", "sqlite"]


def test_what_failed_beside_another_suite_is_tried_once_more_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "ROOT", tmp_path)  # its caches are not those of the suite this test is in
    passes_later = """
import pathlib
def test_good():
    pass
def test_second_time():
    been_here = pathlib.Path({folder!r}, "been-here")
    first, _ = not been_here.exists(), been_here.touch()
    assert not first
"""
    unsteady = make_suite(tmp_path, "unsteady", passes_later.format(folder=str(tmp_path)))
    bad = make_suite(tmp_path, "bad", "def test_fails():\n    assert False, 'on purpose'\n")
    many = "import pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_fails(n):\n    assert False\n"
    worse = make_suite(tmp_path, "worse", many)
    first = run([unsteady, bad, worse], side_by_side=2)
    assert all(each.has_failed for each in first)
    capfd.readouterr()

    second = look_again(first, {}, [])

    output = capfd.readouterr().out
    outcome = {each.suite.name: each.has_failed for each in second}
    assert outcome == {"unsteady": False, "bad": True, "worse": True}
    assert "unsteady: once more, alone: " in output
    assert "1 passed" in output
    assert "worse: once more" not in output
    assert summarise(second, 2.0) == 2
    told = capfd.readouterr().out
    assert "UNSTEADY" in told
    assert "test_second_time" in told
    assert "failed: ['bad', 'worse']" in told or "failed: ['worse', 'bad']" in told
