from __future__ import annotations

import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from auth_kit import NOON

from auth_service import clock
from auth_service.tokens import keys
from auth_service.tokens.keys import KeyFolder

pytestmark = pytest.mark.only_on("sqlite")

OVERLAP = timedelta(minutes=15)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys", overlap=OVERLAP)


ENSURE = """
import sys
from datetime import timedelta
from pathlib import Path
from auth_service.tokens.keys import KeyFolder
print(KeyFolder(Path(sys.argv[1]), overlap=timedelta(0)).ensure("RS256").keys[0].kid)
"""


def test_the_first_key_signs_at_once_and_only_its_owner_reads_it(tmp_path: Path, folder: KeyFolder) -> None:
    key = folder.ensure("RS256").signing_key(clock.now())
    path = tmp_path / "keys" / f"{key.kid}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert folder.ensure("RS256").keys == folder.load().keys
    assert "PRIVATE" not in repr(key)


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENSURE, str(tmp_path / "keys")]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    kids = {starter.communicate(timeout=60)[0].split()[-1] for starter in starters}
    assert len(kids) == 1


@pytest.mark.req("A11")
def test_a_new_key_is_published_before_it_signs_and_the_old_one_outlives_its_tokens(
    frozen: clock.FrozenClock, folder: KeyFolder
) -> None:
    old = folder.ensure("RS256").keys[0]
    new = folder.rotate("RS256", publish_ahead=timedelta(minutes=10))
    known = folder.reload()

    assert [key.kid for key in known.verifying(NOON)] == [old.kid, new.kid]
    assert known.signing_key(NOON + timedelta(minutes=10, seconds=-1)).kid == old.kid
    assert known.signing_key(NOON + timedelta(minutes=10)).kid == new.kid
    last = NOON + timedelta(minutes=10) + OVERLAP
    assert known.find_verifying(old.kid, last - timedelta(seconds=1)) is not None
    assert known.find_verifying(old.kid, last) is None
    assert [key.kid for key in known.verifying(last)] == [new.kid]


@pytest.mark.req("A11")
def test_a_leaked_key_is_refused_at_once(frozen: clock.FrozenClock, folder: KeyFolder) -> None:
    old = folder.ensure("RS256").keys[0]
    new = folder.rotate("RS256", publish_ahead=timedelta(minutes=10), retire_others=True)
    known = folder.load()
    assert [key.kid for key in known.verifying(NOON)] == [new.kid]
    assert known.signing_key(NOON).kid == new.kid
    assert known.find_verifying(old.kid, NOON) is None


def test_retired_keys_are_deleted_at_the_next_rotation(frozen: clock.FrozenClock, folder: KeyFolder) -> None:
    old = folder.ensure("RS256").keys[0]
    frozen.advance(1)
    folder.rotate("RS256", publish_ahead=timedelta(0))
    frozen.advance(timedelta(hours=1))
    folder.rotate("RS256", publish_ahead=timedelta(0))
    assert old.kid not in {key.kid for key in folder.reload().keys}
    assert len(folder.reload().keys) == 2


def test_another_process_sees_a_new_key(tmp_path: Path, folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auth_service.tokens.keys._RECHECK_S", 0.0)
    folder.ensure("RS256")
    other = KeyFolder(tmp_path / "keys", overlap=OVERLAP)
    assert len(other.load().keys) == 1
    folder.rotate("EdDSA", publish_ahead=timedelta(0))
    assert [key.algorithm for key in other.load().keys] == ["RS256", "EdDSA"]


@pytest.mark.req("A11")
def test_a_key_that_is_deleted_while_the_folder_is_read_takes_no_other_with_it(
    frozen: clock.FrozenClock, tmp_path: Path, folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ensure("RS256")
    frozen.advance(1)
    folder.rotate("RS256", publish_ahead=timedelta(0))
    frozen.advance(timedelta(hours=1))
    other = KeyFolder(tmp_path / "keys", overlap=OVERLAP)
    rotations = iter([lambda: folder.rotate("RS256", publish_ahead=timedelta(0))])
    read_one = keys._read_key

    def read_late(path: Path) -> keys.SigningKey:
        # All files have been listed; now a rotation deletes the retired one before the first of them is opened.
        next(rotations, lambda: None)()
        return read_one(path)

    monkeypatch.setattr(keys, "_read_key", read_late)
    seen = [key.kid for key in other.load().keys]
    assert seen == [key.kid for key in folder.load().keys]
    assert len(seen) == 2


def test_ed25519_keys_show_public_members_only(folder: KeyFolder) -> None:
    jwk = folder.ensure("EdDSA").keys[0].public_jwk
    assert set(jwk) == {"kty", "crv", "x", "use", "alg", "kid"}
    assert (jwk["kty"], jwk["crv"], jwk["alg"]) == ("OKP", "Ed25519", "EdDSA")


def test_a_missing_folder_has_no_keys(folder: KeyFolder) -> None:
    assert folder.load().keys == ()
    with pytest.raises(LookupError):
        folder.load().signing_key(clock.now())
