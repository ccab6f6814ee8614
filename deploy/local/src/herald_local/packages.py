"""Programs that are not Python packages: find them, install what is missing, or say exactly what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from herald_local.console import give_up, say

_POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class SystemPackage:
    """One program Herald needs from the operating system.

    Attributes:
        name: What a person calls it.
        find: The folder or file of the installed program, or None.
        apt: Debian's and Ubuntu's package names.
        brew: Homebrew's formula.
        otherwise: What to do where neither package manager is there.
    """

    name: str
    find: Callable[[], Path | None]
    apt: tuple[str, ...]
    brew: str
    otherwise: str


def get_program(package: SystemPackage) -> Path:
    """Where the program is, after installing it if it was missing. Ends the run with instructions if it cannot."""
    if found := package.find():
        return found
    if shutil.which("apt-get") and (os.geteuid() == 0 or shutil.which("sudo")):
        say("setup", f"{package.name} is missing: apt-get install {' '.join(package.apt)}")
        _apt_install(package)
    elif shutil.which("brew"):
        say("setup", f"{package.name} is missing: brew install {package.brew}")
        _run(package, ["brew", "install", package.brew])
    else:
        give_up("setup", f"{package.name} is missing. {package.otherwise}")
    found = package.find()
    if found is None:
        give_up("setup", f"{package.name} was installed but cannot be found. {package.otherwise}")
    return found


def _apt_install(package: SystemPackage) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    with _no_service_start():
        _run(package, [*sudo, "apt-get", "update", "-qq"], environment)
        _run(package, [*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *package.apt], environment)


@contextlib.contextmanager
def _no_service_start() -> Iterator[None]:
    """Keep Debian from starting the packages' own services: Herald runs private ones, on other ports."""
    if os.geteuid() != 0 or _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _run(package: SystemPackage, command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        give_up("setup", f"installing {package.name} failed ({' '.join(command)}). {package.otherwise}")
