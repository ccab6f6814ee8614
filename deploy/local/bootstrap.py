#!/usr/bin/env python3
"""Make the development environment: `.venv` with every pinned package and the four members installed editable.

Runs on a machine that has Python 3.11 or newer and nothing else, so it imports the standard library only. Does nothing
when the environment already matches the lock files (a fraction of a second).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".made-from"
LOCKS = [ROOT / "requirements" / "uv.txt", ROOT / "requirements" / "dev.txt"]
MEMBERS = ["shared_contracts", "auth_service", "notification_service", "deploy/local"]
MINIMUM = (3, 11)


def say(text: str) -> None:
    """Show one step of progress."""
    print(f"setup    | {text}", flush=True)


def run(*command: str | Path) -> None:
    """Run one step; on failure show its output and stop with its exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    if has_system_certificates():
        # Else uv takes its own, and can download nothing behind a proxy whose certificate only the system knows.
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"setup    | failed: {' '.join(str(part) for part in command)}")


def has_system_certificates() -> bool:
    """Whether this machine has a store of certificates; without one uv brings its own."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))


def fingerprint() -> str:
    """What the environment is made from; another value means it must be made again."""
    digest = hashlib.sha256(f"{sys.version}\n{ROOT}\n".encode())
    for path in [*LOCKS, *(ROOT / member / "pyproject.toml" for member in MEMBERS)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_usable() -> bool:
    """Whether there is an environment of this very Python; its packages are brought up to date in place."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    configuration = VENV / "pyvenv.cfg"
    return PYTHON.exists() and configuration.is_file() and f"version = {version}" in configuration.read_text()


def make_venv() -> None:
    """Create `.venv` with pip; Debian keeps the module for it in a package of its own."""
    try:
        run_quietly = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False
        )
        if run_quietly.returncode == 0:
            return
    except OSError as error:
        sys.exit(f"setup    | cannot start {sys.executable}: {error}")
    if shutil.which("apt-get") and (os.geteuid() == 0 or shutil.which("sudo")):
        say("this Python has no venv module with pip: installing python3-venv")
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        run(*sudo, "apt-get", "update", "-qq")
        run(*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-venv")
        run(sys.executable, "-m", "venv", "--clear", VENV)
        return
    sys.stderr.write(run_quietly.stdout + run_quietly.stderr)
    sys.exit("setup    | this Python cannot make virtual environments: install its venv module, then run make again")


def main() -> None:
    """Bring `.venv` up to date."""
    if sys.version_info < MINIMUM:
        sys.exit(f"setup    | Herald needs Python {MINIMUM[0]}.{MINIMUM[1]} or newer, this is {sys.version.split()[0]}")
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    if not is_usable():
        say(f"making {VENV.name} with Python {sys.version.split()[0]}")
        make_venv()
    say("installing uv")
    run(PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCKS[0])
    say("installing the pinned packages (about 60 MB on the first run)")
    run(PYTHON, "-m", "uv", "pip", "sync", "--quiet", "--python", PYTHON, "--require-hashes", *LOCKS)
    say("installing Herald's own packages")
    editable = [part for member in MEMBERS for part in ("-e", f"./{member}")]
    run(
        PYTHON,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        PYTHON,
        "--no-deps",
        "--no-build-isolation",
        *editable,
    )
    STAMP.write_text(wanted)
    say(f"environment ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
