"""Access tokens as others see them: libraries of other languages, and nothing but the key set's address.

Node's jose and Perl's Crypt::JWT always; the JVM's jose4j where a JDK is at hand, and jose4j and slf4j-api in Maven's
local repository or on the class path in HERALD_TEST_JOSE4J.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from auth_kit import Api, log_in, make_user
from auth_server import Server
from typing_extensions import override

from auth_service.tokens import access_tokens, views
from auth_service.tokens.keys import KeyFolder
from herald_local.packages import SystemPackage, get_program

pytestmark = pytest.mark.only_on("sqlite")

HERE = Path(__file__).parent / "consumers"


def find_node() -> Path | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    return Path(node) if node and npm else None


def find_perl_library() -> Path | None:
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MCrypt::JWT", "-e1"], check=False, capture_output=True).returncode:
        return None
    return Path(perl)


def find_jose4j() -> str | None:
    """What Maven has fetched of it for whatever project, the newest."""
    repository = Path.home() / ".m2" / "repository"
    found = [
        sorted(repository.glob(f"{place}/*/*.jar")) for place in ("org/bitbucket/b_c/jose4j", "org/slf4j/slf4j-api")
    ]
    return os.pathsep.join(str(jars[-1]) for jars in found) if all(found) else None


NODE = SystemPackage("Node.js", find_node, ("nodejs", "npm"), "node", "Install Node.js 18 or newer.")
PERL = SystemPackage("Perl's Crypt::JWT", find_perl_library, ("libcrypt-jwt-perl",), "perl", "Run: cpan Crypt::JWT")


@pytest.fixture(scope="module", params=["node", "perl", "jvm"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """How to run one library's check."""
    if request.param == "perl":
        return [str(get_program(PERL)), str(HERE / "verify.pl")]
    if request.param == "jvm":
        java, class_path = shutil.which("java"), os.environ.get("HERALD_TEST_JOSE4J") or find_jose4j()
        if java is None or shutil.which("javac") is None or class_path is None:
            pytest.skip("jose4j is not at hand: set HERALD_TEST_JOSE4J to a class path with jose4j and slf4j-api")
        return [java, "-cp", class_path, str(HERE / "Verify.java")]
    node = get_program(NODE)
    if not (HERE / "node_modules" / "jose").exists():
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=HERE, check=True)
    return [str(node), str(HERE / "verify.mjs")]


def verify(command: list[str], key_set: str, issuer: str, token: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, key_set, issuer, token], capture_output=True, text=True, check=False, timeout=120)


def test_a_token_is_verified_from_the_key_sets_address_alone(server: Server, command: list[str]) -> None:
    token = server.log_in("alice", "herald-alice")["access"]
    key_set = f"{server.url}/.well-known/jwks.json"

    done = verify(command, key_set, server.url, token)

    assert done.returncode == 0, done.stderr
    claims = json.loads(done.stdout)
    assert (claims["aud"], claims["iss"], claims["token_use"]) == ("herald", server.url, "access")
    assert verify(command, key_set, "https://other.example", token).returncode != 0
    header, payload, signature = token.split(".")
    forged = f"{header}.{payload}.{signature[:-8]}AAAAAAAA"
    assert verify(command, key_set, server.url, forged).returncode != 0


@pytest.fixture
def ed25519_key_set(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the key set of a service that signs with EdDSA."""
    folder = KeyFolder(tmp_path / "keys", overlap=timedelta(minutes=15))
    folder.ensure("EdDSA")
    monkeypatch.setattr(access_tokens, "key_folder", lambda: folder)
    monkeypatch.setattr(views, "key_folder", lambda: folder)
    document = Api().get("/.well-known/jwks.json").text.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(document)

        @override
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()
        thread.join()


def test_a_token_signed_with_ed25519_is_verified_too(ed25519_key_set: str, command: list[str]) -> None:
    token = log_in(make_user("ada")).token
    assert token is not None
    done = verify(command, ed25519_key_set, "http://127.0.0.1:8000", token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["roles"] == ["user"]
