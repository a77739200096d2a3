"""API keys: found where the settings say, compared in a time that tells nothing, and repeated nowhere."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.auth import AuthError, Keyring, TenantConfig, new_key
from skipvision.config import check
from skipvision.errors import ConfigError

KEYS = [f"sv-a-key-of-the-tests-{number}" for number in range(6)]
SECRET = "a secret with spaces, or hex 0123456789"


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def tenant(name: str, *keys: str, **settings) -> TenantConfig:
    return TenantConfig(name=name, key_hashes=tuple(map(hashed, keys)), **settings)


def chain(error: BaseException | None) -> Iterator[str]:
    """Everything that a traceback of this error shows of it and of its causes."""
    while error is not None:
        yield f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("value", ["Bearer {}", "bearer {}", "BEARER   {} ", " Bearer {}"])
def test_a_key_leads_to_its_tenant(value):
    acme, zeta = tenant("acme", KEYS[0], KEYS[1]), tenant("zeta", KEYS[2])
    keyring = Keyring([acme, zeta])
    assert [keyring.tenant_of(value.format(key)) for key in KEYS[:3]] == [acme, acme, zeta]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer  ", "missing_api_key"),
        (f"Basic {KEYS[0]}", "missing_api_key"),
        (KEYS[0], "missing_api_key"),
        (f"Bearer {KEYS[1]}", "invalid_api_key"),
        (f"Bearer {KEYS[0]} {KEYS[0]}", "invalid_api_key"),
        (f"Bearer {KEYS[0][:-1]}", "invalid_api_key"),
        (f"Bearer {KEYS[0].upper()}", "invalid_api_key"),
        (f"Bearer {hashed(KEYS[0])}", "invalid_api_key"),
        ("Bearer \xff\udc80\x00", "invalid_api_key"),
    ],
)
def test_whoever_has_no_key_is_told_what_is_wrong_and_no_key(value, code):
    with pytest.raises(AuthError) as refusal:
        Keyring([tenant("acme", KEYS[0])]).tenant_of(value)
    assert refusal.value.code == code
    assert KEYS[0] not in " ".join(chain(refusal.value))
    assert pickle.loads(pickle.dumps(refusal.value)).code == code


@pytest.mark.parametrize("value", [f"Bearer {KEYS[0]}", f"Bearer {KEYS[3]}", "Bearer wrong", "Basic x", "", None])
def test_every_key_is_compared_whatever_was_sent(monkeypatch, value):
    keyring = Keyring([tenant("acme", KEYS[0], KEYS[1]), tenant("zeta", KEYS[2], KEYS[3])])
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr("service.auth.hmac.compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    with suppress(AuthError):
        keyring.tenant_of(value)
    assert sorted(known.hex() for known in compared) == sorted(map(hashed, KEYS[:4]))


def test_without_tenants_everyone_is_the_anonymous_one():
    anyone = TenantConfig(name="anyone", requests_per_minute=3)
    keyring = Keyring([], anonymous=anyone)
    assert keyring.is_open
    assert [keyring.tenant_of(value) for value in (None, "Bearer x", "nonsense")] == [anyone] * 3
    assert keyring.tenants == (anyone,)
    assert Keyring([]).tenant_of(None) == TenantConfig(name="anonymous")


def test_with_a_tenant_nobody_is_anonymous():
    keyring = Keyring([tenant("acme", KEYS[0])], anonymous=TenantConfig(name="anyone"))
    assert not keyring.is_open
    assert [known.name for known in keyring.tenants] == ["acme"]


def test_keys_come_from_settings_files_and_the_environment(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"\ufeff# of the team\r\n\r\n  {KEYS[1]}  \r\nsha256:{hashed(KEYS[2]).upper()}\r\n")
    acme = tenant("acme", KEYS[0], KEYS[1], key_files=(str(path),), key_env="ACME_KEYS")
    keyring = Keyring(iter([acme]), environ={"ACME_KEYS": f"{KEYS[3]}\n{KEYS[4]}"})
    assert [keyring.tenant_of(f"Bearer {key}") for key in KEYS[:5]] == [acme] * 5
    with pytest.raises(AuthError):
        keyring.tenant_of(f"Bearer {KEYS[5]}")


def test_a_new_key_is_long_random_and_fits_the_settings():
    (key, its_hash), (other, _) = new_key(), new_key()
    assert re.fullmatch(r"sv-[A-Za-z0-9_-]{43}", key)
    assert key != other
    acme = TenantConfig(name="acme", key_hashes=(its_hash,))
    assert Keyring([acme]).tenant_of(f"Bearer {key}") is acme


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "a b"}, "tenant name 'a b' must be"),
        ({"name": ""}, "must be 1 to 64"),
        ({"key_hashes": (SECRET,)}, r"acme: key_hashes\[0\] is not the SHA-256"),
        ({"key_hashes": (hashed(KEYS[0]), hashed("x")[:-1])}, r"key_hashes\[1\] is not the SHA-256"),
        ({"key_hashes": (hashed(""),)}, "SHA-256 of an empty text"),
        ({"key_env": SECRET}, "acme: key_env must be the name"),
        ({"requests_per_minute": 0}, "acme: requests_per_minute must be at least 1; got 0"),
        ({"tokens_per_day": -1}, "acme: tokens_per_day must be at least 1; got -1"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_remedy_and_without_the_secret(settings, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        TenantConfig(**{"name": "acme"} | settings)
    assert SECRET not in " ".join(chain(refusal.value))


@pytest.mark.parametrize("settings", [{"key": SECRET}, {"key_hashes": SECRET}, {"key_hashes": [SECRET]}])
def test_a_key_that_stands_in_a_file_of_settings_is_not_repeated(settings):
    with pytest.raises(ConfigError) as refusal:
        check({"name": "acme", **settings}, TenantConfig, origin="service.yaml")
    assert SECRET not in " ".join(chain(refusal.value))


@pytest.mark.parametrize(
    ("tenants", "says"),
    [
        ([tenant("acme", KEYS[0]), tenant("zeta", KEYS[0])], "tenants acme and zeta have the same key"),
        ([tenant("acme", KEYS[0]), tenant("acme", KEYS[1])], "acme is listed twice"),
        ([tenant("acme")], "acme has no key: set key_hashes"),
        ([tenant("acme", key_env="NOT_SET")], "acme: the environment variable that key_env names is not set"),
        ([tenant("acme", key_env="SHORT")], "acme: .* line 1: the key has 19 characters and needs 20"),
        ([tenant("acme", key_env="BLANK")], "acme: .* holds no key"),
    ],
)
def test_tenants_that_do_not_go_together_are_refused_by_name(tenants, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        Keyring(tenants, environ={"SHORT": "s" * 19, "BLANK": " \n# none\n"})
    assert "s" * 19 not in " ".join(chain(refusal.value))


def test_an_anonymous_tenant_has_no_keys():
    with pytest.raises(ConfigError, match="acme has keys, so it is not anonymous"):
        Keyring([], anonymous=tenant("acme", KEYS[0]))


WRONG_FILES = [
    (b"", "holds no key"),
    (b"# nothing yet\n", "holds no key"),
    (b"sv-too-short\n", "line 1: the key has 12 characters"),
    (f"{KEYS[0]}\nsha256:123\n".encode(), "line 2 is not the SHA-256"),
    (f"Bearer {KEYS[0]}".encode(), "without spaces"),
    ("sv-schlüssel-mit-umlauten".encode(), "visible ASCII"),
    (b"\xff\xfe\x00" + KEYS[0].encode(), "is not text"),
    (None, r"cannot be read \(No such file"),
]


@pytest.mark.parametrize(("content", "says"), WRONG_FILES)
def test_a_wrong_key_file_is_refused_by_tenant_and_place_and_not_repeated(tmp_path, content, says):
    path = tmp_path / "mounted"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"tenant acme: key_files\[0\].*{says}") as refusal:
        Keyring([tenant("acme", key_files=(str(path),))])
    shown = " ".join(chain(refusal.value))
    assert not any(text in shown for text in (KEYS[0], "schl", "too-short", str(path)))


def test_a_key_named_as_a_file_is_not_repeated():
    with pytest.raises(ConfigError) as refusal:
        Keyring([tenant("acme", key_files=(KEYS[0],))])
    assert KEYS[0] not in " ".join(chain(refusal.value))


def test_a_key_of_twenty_characters_is_long_enough():
    acme = tenant("acme", key_env="KEY")
    assert Keyring([acme], environ={"KEY": "k" * 20}).tenant_of(f"Bearer {'k' * 20}") is acme


def swap(link: Path, target: Path) -> None:
    """As the kubelet does it: a new link takes the place of the old one."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def mounted(folder: Path, *keys: str) -> Path:
    folder.mkdir()
    (folder / "key").write_text("\n".join(keys))
    return folder


def test_a_secret_replaced_by_its_link_is_read_again(tmp_path):
    (tmp_path / "..data").symlink_to(mounted(tmp_path / "one", KEYS[0]))
    (tmp_path / "key").symlink_to(Path("..data/key"))
    acme = tenant("acme", key_files=(str(tmp_path / "key"),))
    keyring = Keyring([acme])
    assert not keyring.refresh()
    swap(tmp_path / "..data", mounted(tmp_path / "two", KEYS[1]))
    assert keyring.refresh()
    assert keyring.tenant_of(f"Bearer {KEYS[1]}") is acme
    with pytest.raises(AuthError):
        keyring.tenant_of(f"Bearer {KEYS[0]}")
    assert not keyring.refresh()


@pytest.mark.parametrize(("content", "says"), WRONG_FILES)
def test_a_file_that_became_wrong_leaves_the_old_keys_and_one_warning(tmp_path, caplog, content, says):
    path = tmp_path / "key"
    path.write_text(KEYS[5])
    acme = tenant("acme", key_files=(str(path),))
    keyring = Keyring([acme])
    path.unlink() if content is None else path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [keyring.refresh() for _ in range(3)] == [False] * 3
    assert keyring.tenant_of(f"Bearer {KEYS[5]}") is acme
    [warning] = caplog.messages
    assert re.search(says, warning)
    assert not any(key in warning for key in KEYS)


def test_a_wrong_file_does_not_hold_up_the_right_ones(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, key in zip(paths, KEYS, strict=False):
        path.write_text(key)
    tenants = [tenant(path.name, key_files=(str(path),)) for path in paths]
    keyring = Keyring(tenants)
    for path, text in zip(paths, (KEYS[3], "wrong", KEYS[4]), strict=True):
        path.write_text(text)
    assert keyring.refresh()
    assert [keyring.tenant_of(f"Bearer {KEYS[index]}").name for index in (3, 1, 4)] == ["a", "b", "c"]


def test_a_key_that_becomes_that_of_two_tenants_leaves_all_as_it_was(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text(KEYS[1])
    keyring = Keyring([tenant("acme", KEYS[0]), tenant("zeta", key_files=(str(path),))])
    path.write_text(f"{KEYS[0]}\n{KEYS[2]}")
    assert not keyring.refresh()
    assert "acme and zeta have the same key" in caplog.text
    assert [keyring.tenant_of(f"Bearer {key}").name for key in KEYS[:2]] == ["acme", "zeta"]
    path.write_text(KEYS[2])
    assert keyring.refresh()
    assert keyring.tenant_of(f"Bearer {KEYS[2]}").name == "zeta"


def test_a_file_rewritten_with_as_many_bytes_is_noticed(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEYS[0])
    keyring = Keyring([tenant("acme", key_files=(str(path),))])
    path.write_text(KEYS[1])
    os.utime(path, ns=(0, 1))
    assert keyring.refresh()


def test_no_key_shows_in_what_can_be_printed(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEYS[0])
    acme = tenant("acme", key_files=(str(path),), key_env="KEY")
    keyring = Keyring([acme], environ={"KEY": KEYS[1]})
    held = repr(acme) + repr(keyring) + repr(vars(keyring)) + repr([vars(file) for file in keyring._files["acme"]])
    assert not any(key in held for key in KEYS)


def test_models_are_those_that_are_named_or_all():
    assert tenant("acme").may_ask("anything")
    assert [tenant("acme", models=("small",)).may_ask(name) for name in ("small", "large")] == [True, False]
