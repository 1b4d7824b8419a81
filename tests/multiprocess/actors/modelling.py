"""Processes that race for the objects of a model."""

from __future__ import annotations

import random
from time import sleep
from typing import Any

from tests.multiprocess.actors import hear, say

SEATS = 25
"""Unique values that all processes want."""
NAMES = 10
"""Keys that all processes get or create."""


def define(location: str, options: dict[str, Any]) -> Any:
    """Django's settings, and the model that all processes share."""
    import django
    from django.conf import settings

    if not settings.configured:
        alias = {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": location, "OPTIONS": options}
        settings.configure(
            SECRET_KEY="only for the tests of many processes",
            USE_TZ=True,
            INSTALLED_APPS=["django_keyspace"],
            CACHES={"default": alias},
            KEYSPACE={},
        )
        django.setup()
    from django.db import models as f

    from django_keyspace import kv

    class Guest(kv.Model):
        name = f.CharField(max_length=40)
        seat = f.IntegerField(null=True)
        visits = f.IntegerField(default=0)
        log = f.JSONField(default=list)

        class Meta:
            app_label = "races"
            key = "name"
            indexes = ["visits"]
            unique = ["seat"]

    return Guest


def race(location: str, options: dict[str, Any], number: int, rounds: int) -> None:
    """Take seats, get or create guests, count, and save what others save, too. Tells what was done for certain, and what maybe.

    A call that ends with an outage may have been carried out: it counts as "maybe".
    """
    from django_keyspace import kv
    from django_keyspace.exceptions import KeyspaceError

    guest = define(location, options)
    chance = random.Random(number)
    won: list[int] = []
    created: list[str] = []
    done = {"visits": 0, "log": 0}
    maybe = {"visits": 0, "log": 0}
    conflicts = 0
    say("ready")
    hear()
    for turn in range(rounds):
        if number == 0 and turn in (rounds // 4, rounds // 2):
            say("under way")
        seat, name, mark = chance.randrange(SEATS), f"g{chance.randrange(NAMES)}", f"{number}.{turn}"
        started = ""
        try:
            try:
                guest.objects.create(name=f"seat{number}.{turn}", seat=seat)
                won.append(seat)
            except kv.DuplicateValue:
                pass
            found, is_new = guest.objects.get_or_create(name=name)
            if is_new:
                created.append(name)
            started = "visits"
            found.incr("visits")
            done["visits"] += 1
            started = "log"
            while True:
                try:
                    found.log = [*found.log, mark]
                    found.save()
                    break
                except kv.Conflict:
                    conflicts += 1
                    found.refresh()
                    if mark in found.log:  # an earlier try was carried out after all
                        break
            done["log"] += 1
        except kv.DuplicateValue:
            raise
        except KeyspaceError:
            if started:
                maybe[started] += 1
            while not _answers(guest):  # so that no turn is spent on an outage that is known
                sleep(0.02)
    say({"won": won, "created": created, "done": done, "maybe": maybe, "conflicts": conflicts})


def _answers(guest: Any) -> bool:
    from django_keyspace.exceptions import KeyspaceError

    try:
        guest.objects.exists()
    except KeyspaceError:
        return False
    return True
