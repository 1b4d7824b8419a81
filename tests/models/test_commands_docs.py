"""The page about models has every flag of the commands, and everything that they find."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from django_keyspace.backend.models import upkeep

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8").partition("\n## Commands\n")[2]
COMMANDS = {
    "keyspace_reindex": {"--using", "--all", "--mark"},
    "keyspace_check_models": {"--using", "--fix", "--json"},
    "keyspace_dump_models": {"--using", "--output", "-o"},
    "keyspace_load_models": {"--using", "--keep-existing"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_flag_is_documented(name: str) -> None:
    parser = load_command_class("django_keyspace", name).create_parser("manage.py", name)
    django_flags = BaseCommand().create_parser("manage.py", "x")._option_string_actions
    own = {flag for flag in parser._option_string_actions if flag not in django_flags}
    assert own == COMMANDS[name]
    assert f"`{name}`" in PAGE
    assert [flag for flag in own if f"`{flag}" not in PAGE] == []


def test_every_kind_of_drift_is_documented() -> None:
    kinds = {upkeep.MISSING, upkeep.WRONG, upkeep.DEADLINE, upkeep.ORPHAN, upkeep.UNREADABLE, upkeep.DUPLICATE}
    assert len(kinds) == 6
    assert [kind for kind in kinds if f"| `{kind}` |" not in PAGE] == []
