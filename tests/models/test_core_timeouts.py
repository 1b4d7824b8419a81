"""Timeouts per class and object: records and their index entries end together, and what has ended is nowhere."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import models as f

from django_keyspace import kv
from django_keyspace.exceptions import InvalidArgument
from tests.contract.engines import Place
from tests.models.drift import drift, listed

Ask = Callable[..., Any]
SHORT_S = 0.05


class Ticket(kv.Model):
    code = f.CharField(max_length=20)
    seat = f.IntegerField(null=True)
    price = f.IntegerField(default=0)

    class Meta:
        app_label = "timeouts"
        key = "code"
        indexes = ["price"]
        unique = ["seat"]
        timeout = datetime.timedelta(hours=1)


class Pass(kv.Model):
    code = f.CharField(max_length=20, primary_key=True)
    price = f.IntegerField(default=0, db_index=True)

    class Meta:
        app_label = "timeouts"


@pytest.fixture(autouse=True)
def in_step(alias: Place) -> Iterator[None]:
    """Entries have the deadlines of their records, whatever a test does."""
    yield
    assert drift(alias.engine, Ticket) == [] and drift(alias.engine, Pass) == []


def await_end(obj: Any) -> None:
    """Wait until an object has expired."""
    limit = monotonic() + 30
    while type(obj).objects.filter(pk=obj.pk).exists():
        assert monotonic() < limit
        sleep(0.005)


def test_the_timeout_of_the_class(alias: Place, ask: Ask) -> None:
    ticket = Ticket(code="a", seat=1)
    ask(ticket, "save")
    assert 3590 < ask(ticket, "ttl") <= 3600 and ticket._state.deadline_ms > 0
    assert drift(alias.engine, Ticket) == []
    made = ask(Ticket.objects, "bulk_create", [Ticket(code="b", seat=2), Ticket(code="c")])
    assert all(3590 < ask(each, "ttl") <= 3600 for each in made)
    never = Pass(code="a")
    ask(never, "save")
    assert ask(never, "ttl") is None and never._state.deadline_ms == 0


def test_the_timeout_of_an_object(alias: Place, ask: Ask) -> None:
    ticket = Ticket(code="a", seat=1)
    ask(ticket, "save", timeout=60)
    assert 50 < ask(ticket, "ttl") <= 60
    ticket.price = 3
    ask(ticket, "save")  # keeps it
    assert 50 < ask(ticket, "ttl") <= 60
    ask(ticket, "incr", "price")
    ask(ticket, "update", seat=7)
    assert Ticket.objects.filter(pk="a").update(price=9) == 1
    assert 50 < ask(ticket, "ttl") <= 60 and drift(alias.engine, Ticket) == []
    ask(ticket, "refresh")
    ask(ticket, "save", timeout=datetime.timedelta(minutes=10))
    assert 590 < ask(ticket, "ttl") <= 600 and drift(alias.engine, Ticket) == []
    ask(ticket, "save", timeout=None)
    assert ask(ticket, "ttl") is None
    ask(ticket, "save", update_fields=["price"], timeout=60)
    assert 50 < ask(ticket, "ttl") <= 60
    ask(ticket, "save", force=True)
    assert 50 < ask(ticket, "ttl") <= 60
    assert ask(Ticket.objects, "bulk_create", [Ticket(code="b")], timeout=5)[0]._state.deadline_ms > 0


def test_touch(alias: Place, ask: Ask) -> None:
    ticket = Ticket(code="a", seat=1)
    ask(ticket, "save", timeout=60)
    for timeout, least, most in ((100, 90, 100), (datetime.timedelta(seconds=50), 40, 50)):
        assert ask(ticket, "touch", timeout) is True
        assert least < ask(ticket, "ttl") <= most and drift(alias.engine, Ticket) == []
    assert ask(ticket, "touch", None) and ask(ticket, "ttl") is None
    assert ask(ticket, "touch") and 3590 < ask(ticket, "ttl") <= 3600
    ticket.price = 4
    ask(ticket, "save")  # a touch of one's own is no conflict
    other = Ticket.objects.get(pk="a")
    assert ask(ticket, "touch", 77)
    other.price = 5
    ask(other, "save")  # nor is one of somebody else: nothing but the deadline was changed, and that stays
    assert ask(other, "ttl") <= 77
    other.delete()
    assert ask(ticket, "touch", 60) is False
    with pytest.raises(Ticket.DoesNotExist):
        ask(ticket, "ttl")


def test_what_has_expired_is_nowhere(alias: Place, ask: Ask) -> None:
    ticket = Ticket(code="a", seat=1, price=5)
    ask(ticket, "save", timeout=SHORT_S)
    await_end(ticket)
    for query in (
        Ticket.objects.all(),
        Ticket.objects.filter(price=5),
        Ticket.objects.filter(seat=1),
        Ticket.objects.filter(pk="a"),
        Ticket.objects.order_by("-price"),
    ):
        assert list(query) == [] and query.count() == 0 and not query.exists()
    with pytest.raises(Ticket.DoesNotExist):
        ask(ticket, "refresh")
    with pytest.raises(kv.Conflict, match="expired") as caught:
        ask(ticket, "save")
    assert caught.value.stored is None
    for index in Ticket._meta.indexes.values():
        assert listed(alias.engine, Ticket._storage().database, index.prefix) == {}
    ask(Ticket(code="b", seat=1), "save")  # its seat is free
    ask(Ticket(code="a"), "save")  # and its key
    assert Ticket.objects.count() == 2


def test_touch_with_what_is_shorter(alias: Place, ask: Ask) -> None:
    ticket = Ticket(code="a", seat=1)
    ticket.save()
    assert ask(ticket, "touch", SHORT_S)
    await_end(ticket)
    ask(Ticket(code="b", seat=1), "save")


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_leaves_nothing_is_refused(alias: Place, ask: Ask, timeout: int) -> None:
    with pytest.raises(InvalidArgument, match="leaves nothing to store"):
        ask(Ticket(code="a"), "save", timeout=timeout)
    Ticket(code="a").save()
    with pytest.raises(InvalidArgument, match="leaves nothing to store"):
        ask(Ticket.objects.get(pk="a"), "touch", timeout)
    with pytest.raises(InvalidArgument):
        ask(Ticket.objects.get(pk="a"), "save", timeout="soon")
    assert Ticket.objects.count() == 1
