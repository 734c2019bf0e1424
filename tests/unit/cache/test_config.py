"""Settings that cannot work stop the start and say why."""

import pytest

from services.cache.config import CacheSettings
from services.common.config import ConfigError, from_environment, prefix_of


def settings(**values):
    prefix = prefix_of("cache")
    return from_environment(
        CacheSettings, prefix, {prefix + k.upper(): v for k, v in values.items()}
    )


def test_defaults():
    chosen = settings()
    assert (chosen.listen, chosen.metrics_listen) == ("127.0.0.1:50052", "127.0.0.1:9102")
    assert chosen.redis is None
    assert chosen.lease_seconds == 30
    assert chosen.hash_key() != settings().hash_key()  # nobody shares what is in memory


def test_caches_of_one_redis_have_one_hash_key():
    store = "redis://localhost:6379/1"
    assert settings(store=store).hash_key() == settings(store=store).hash_key()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"lease_seconds": "0"}, "must be more than 0"),
        ({"max_wait_seconds": "61"}, "must be at most 60"),
        ({"listen": "0.0.0.0:1"}, "keys_file must be set"),
    ],
)
def test_what_cannot_work_is_refused(values, rule):
    with pytest.raises(ConfigError, match=rule):
        settings(**values)


def test_a_redis_that_others_may_reach_needs_a_key_that_they_do_not_know():
    with pytest.raises(ConfigError, match="PENNYWEIGHT_CACHE_HASH_KEY_FILE: must be set"):
        settings(store="redis://redis:6379")


def test_the_hash_key_comes_from_a_file(tmp_path):
    (tmp_path / "key").write_text("sixteen bytes or more\n")
    chosen = settings(store="redis://host", hash_key_file=str(tmp_path / "key"))
    assert chosen.hash_key() == b"sixteen bytes or more"


@pytest.mark.parametrize(("content", "rule"), [("short", "holds 5"), ("x" * 65, "holds 65")])
def test_hash_keys_of_another_size_are_refused(tmp_path, content, rule):
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match=rule):
        settings(hash_key_file=str(tmp_path / "key")).hash_key()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="hash_key_file: cannot be read"):
        settings(hash_key_file=str(tmp_path / "none")).hash_key()
