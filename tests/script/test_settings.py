"""``settings.KEYSPACE["SCRIPTS"]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_keyspace.backend import KeyspaceCache
from django_keyspace.exceptions import ConfigurationError, UnknownScript
from tests.script.conftest import LONG_MS


def test_scripts_of_the_settings_are_there_for_every_cache(tmp_path: Path, store_folder: Path) -> None:
    (tmp_path / "one.lua").write_text("function one() return 1 end function both() return 'settings' end")
    cache = KeyspaceCache(str(store_folder), {})
    for paths in (tmp_path, str(tmp_path / "one.lua"), [tmp_path / "one.lua"]):
        with override_settings(KEYSPACE={"SCRIPTS": paths}):
            assert cache.script("one", time_ms=LONG_MS) == 1
    with override_settings(KEYSPACE={"SCRIPTS": tmp_path}):
        cache.load_script("function both() return one() + 1 end")
        assert cache.script("both", time_ms=LONG_MS) == 2
    with pytest.raises(UnknownScript):
        cache.script("one", time_ms=LONG_MS)


@pytest.mark.parametrize("paths", [7, [7], "/no/such/file.lua"])
def test_wrong_settings_are_errors(store_folder: Path, paths: Any) -> None:
    with override_settings(KEYSPACE={"SCRIPTS": paths}), pytest.raises(ConfigurationError):
        KeyspaceCache(str(store_folder), {}).script("f")
