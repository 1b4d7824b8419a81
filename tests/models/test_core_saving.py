"""Saving one object: insert, update, conflicts with both versions, unique values, signals, deleting; by both faces."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import caches
from django.db import IntegrityError
from django.db import models as f

from django_keyspace import kv
from django_keyspace.exceptions import InvalidArgument, KeyTooLong
from django_keyspace.kyoto import KyotoTycoon
from django_keyspace.operations import MODELS_BASE
from tests.contract.engines import Place
from tests.models.drift import drift, listed
from tests.models.samples import Note, Person, Visit

Ask = Callable[..., Any]


class Account(kv.Model):
    owner = f.CharField(max_length=2000)
    email = f.CharField(max_length=2000, null=True)
    city = f.CharField(max_length=20, default="")
    street = f.CharField(max_length=20, default="")
    money = f.PositiveIntegerField(default=0)
    rate = f.DecimalField(max_digits=5, decimal_places=2, default=0)
    made = f.DateTimeField(auto_now_add=True)
    saved = f.DateTimeField(auto_now=True)

    class Meta:
        app_label = "saving"
        key = "owner"
        indexes = ["money", "saved"]
        unique = ["email", ("city", "street")]

    def __str__(self) -> str:
        return self.owner


def account(owner: str = "ann", **values: Any) -> Account:
    """An account that collides with no other by its address."""
    return Account(owner=owner, **{"city": "Bern", "street": owner[:20], **values})


@pytest.fixture(autouse=True)
def in_step(alias: Place) -> Iterator[None]:
    """Whatever a test does, records and entries fit together afterwards."""
    yield
    for model in (Account, Note, Person, Visit):
        assert drift(alias.engine, model) == []


def test_a_new_object_is_stored_and_read(alias: Place, ask: Ask) -> None:
    ann = account(email="ann@example.org", money="12")
    assert (ann._state.adding, ann.revision, ann.pk) == (True, 0, "ann")
    ask(ann, "save")
    assert not ann._state.adding and ann.revision > 0 and ann._state.db == "default"
    found = ask(Account.objects, "get", pk="ann")
    assert found == ann and hash(found) == hash(ann) and found.revision == ann.revision
    assert found.money == 12  # the field converts
    assert Account.objects.get(email="ann@example.org") == ann


def test_a_new_object_needs_a_key_of_its_own(alias: Place, ask: Ask) -> None:
    ask(account(money=1), "save")
    with pytest.raises(kv.DuplicateValue, match=r"saving.Account with owner='ann' already") as caught:
        ask(account(street="elsewhere", money=2), "save")
    assert caught.value.is_key and caught.value.fields == ("owner",) and isinstance(caught.value, IntegrityError)
    assert Account.objects.get(pk="ann").money == 1


def test_an_update_writes_over_what_was_read(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ask(ann, "save")
    before = ann.revision
    ann.money = 2
    ask(ann, "save")
    assert ann.revision > before and Account.objects.get(pk="ann").money == 2
    assert Account.objects.filter(money=1).count() == 0


def test_a_stale_object_is_a_conflict_with_both_versions(alias: Place, ask: Ask) -> None:
    ask(account(money=1), "save")
    mine, theirs = Account.objects.get(pk="ann"), Account.objects.get(pk="ann")
    theirs.money = 5
    ask(theirs, "save")
    mine.money = 7
    with pytest.raises(kv.Conflict, match=r"was changed by somebody else") as caught:
        ask(mine, "save")
    assert caught.value.mine is mine and caught.value.mine.money == 7
    assert caught.value.stored == theirs and caught.value.stored.money == 5
    assert Account.objects.get(pk="ann").money == 5
    ask(mine, "refresh")
    assert mine.money == 5
    mine.money = 8
    ask(mine, "save")
    assert Account.objects.get(pk="ann").money == 8


def test_force_stores_over_whatever_is_there(alias: Place, ask: Ask) -> None:
    account(money=1).save()
    mine, theirs = Account.objects.get(pk="ann"), Account.objects.get(pk="ann")
    theirs.money = 5
    theirs.save()
    mine.money = 7
    ask(mine, "save", force=True)
    assert Account.objects.get(pk="ann").money == 7
    ask(account(money=9), "save", force=True)  # a new object over an old one
    assert Account.objects.get(pk="ann").money == 9
    theirs.delete()
    ask(mine, "save", force=True)  # and where nothing is
    assert Account.objects.get(pk="ann").money == 7


def test_force_takes_no_value_of_another_object(alias: Place, ask: Ask) -> None:
    account(email="a@example.org").save()
    bob = account("bob", email="b@example.org")
    bob.save()
    bob.email = "a@example.org"
    with pytest.raises(kv.DuplicateValue, match=r"email='a@example.org'"):
        ask(bob, "save", force=True)


def test_a_deleted_object_is_a_conflict(alias: Place, ask: Ask) -> None:
    ann = account()
    ann.save()
    assert ask(Account.objects.get(pk="ann"), "delete") == (1, {"saving.Account": 1})
    with pytest.raises(kv.Conflict, match=r"was deleted") as caught:
        ask(ann, "save")
    assert caught.value.stored is None
    with pytest.raises(Account.DoesNotExist):
        ask(ann, "refresh")
    assert ask(ann, "delete") == (0, {})  # it was gone already
    ask(ann, "save")  # delete() made a new object of it
    assert Account.objects.count() == 1


def test_deleting_what_was_never_stored_is_refused(alias: Place, ask: Ask) -> None:
    for method, arguments in (("delete", ()), ("incr", ("money",)), ("touch", ()), ("update", ())):
        with pytest.raises(InvalidArgument, match=r"not stored"):
            ask(account(), method, *arguments)


def test_unique_values(alias: Place, ask: Ask) -> None:
    account(email="a@example.org").save()
    with pytest.raises(kv.DuplicateValue, match=r"email='a@example.org'") as caught:
        ask(account("bob", email="a@example.org"), "save")
    assert caught.value.fields == ("email",) and not caught.value.is_key
    with pytest.raises(kv.DuplicateValue) as caught:
        ask(account("bob", street="ann"), "save")
    assert caught.value.fields == ("city", "street")
    bob = account("bob")
    ask(bob, "save")  # None is no value that somebody could have
    ask(account("eve"), "save")
    bob.email = "a@example.org"
    with pytest.raises(kv.DuplicateValue):
        ask(bob, "save")
    assert Account.objects.get(pk="bob").email is None
    ann = Account.objects.get(pk="ann")
    ann.email = None
    ask(ann, "save")
    ask(bob, "save")  # it is free now
    assert Account.objects.get(email="a@example.org") == bob


def test_an_object_under_a_changed_key_is_another_object(alias: Place, ask: Ask) -> None:
    ann = account(money=3)
    ann.save()
    ann.owner = ann.street = "anna"
    ask(ann, "save")
    assert [(each.owner, each.money) for each in Account.objects.all()] == [("ann", 3), ("anna", 3)]


def test_some_fields_over_what_is_stored(alias: Place, ask: Ask) -> None:
    account(money=1).save()
    mine, theirs = Account.objects.get(pk="ann"), Account.objects.get(pk="ann")
    theirs.street = "Spitalgasse"
    theirs.save()
    mine.money, mine.city = 7, "Basel"
    ask(mine, "save", update_fields=["money"])
    found = Account.objects.get(pk="ann")
    assert (found.money, found.city, found.street) == (7, "Bern", "Spitalgasse")
    with pytest.raises(kv.Conflict):
        ask(mine, "save")  # it has not seen the street
    ask(mine, "save", update_fields=[])  # nothing to do
    for names, error in ((["mony"], "no field 'mony'. Did you mean 'money'"), ("money", "several names")):
        with pytest.raises(InvalidArgument, match=error):
            ask(mine, "save", update_fields=names)
    with pytest.raises(InvalidArgument, match=r"never stored"):
        ask(account("bob"), "save", update_fields=["money"])
    theirs.delete()
    with pytest.raises(kv.Conflict):
        ask(mine, "save", update_fields=["money"])


def test_incr_and_update_lose_nothing(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ann.save()
    stale = Account.objects.get(pk="ann")
    assert ask(ann, "incr", "money") == 2 and ann.money == 2
    assert ask(stale, "incr", "money", 10) == 12 and stale.money == 12
    assert ask(ann, "incr", "money", -2) == 10
    assert ask(ann, "incr", "rate", Decimal("0.25")) == Decimal("0.25")
    changed = ask(stale, "update", money=kv.F("money") * 2, city="Thun")
    assert changed is stale and (stale.money, stale.city) == (20, "Thun")
    found = Account.objects.get(pk="ann")
    assert (found.money, found.city, str(found.rate)) == (20, "Thun", "0.25")
    with pytest.raises(kv.InvalidValue, match=r"saving.Account.money does not take -80"):
        ask(ann, "incr", "money", -100)  # a PositiveIntegerField
    with pytest.raises(kv.UnknownField, match=r"Did you mean 'money'"):
        ask(ann, "incr", "mony")
    with pytest.raises(InvalidArgument, match=r"part of the key"):
        ask(ann, "update", owner="bob")
    found.delete()
    with pytest.raises(Account.DoesNotExist):
        ask(ann, "incr", "money")
    assert Account.objects.count() == 0


def test_an_object_that_changed_in_place_is_not_stale(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ann.save()
    ask(ann, "incr", "money")
    ann.city = "Thun"
    ask(ann, "save")
    assert (ann.money, Account.objects.get(pk="ann").city) == (2, "Thun")
    Account.objects.get(pk="ann").incr("money")
    ask(ann, "incr", "money")  # it has seen its own addition, but not the other's city or what else there may be
    with pytest.raises(kv.Conflict):
        ask(ann, "save")


def test_refresh_of_some_fields(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ann.save()
    theirs = Account.objects.get(pk="ann")
    theirs.money, theirs.city = 2, "Thun"
    theirs.save()
    assert ask(ann, "refresh", ["money"]) is ann and (ann.money, ann.city) == (2, "Bern")
    with pytest.raises(kv.Conflict):
        ask(ann, "save")  # it has not seen the city
    ask(ann, "refresh_from_db")
    assert ann.city == "Thun"
    with pytest.raises(kv.UnknownField):
        ask(ann, "refresh", ["town"])


def test_moments_of_saving(alias: Place, ask: Ask) -> None:
    ann = account()
    ask(ann, "save")
    made, saved = ann.made, ann.saved
    assert made is not None and saved is not None and made.tzinfo is not None
    ask(ann, "save")
    assert ann.made == made and ann.saved > saved
    ask(ann, "save", update_fields=["saved"])
    assert Account.objects.get(pk="ann").saved == ann.saved


def test_automatic_ids(alias: Place, ask: Ask) -> None:
    notes = [Note(text=text) for text in "ab"]
    for note in notes:
        assert note.pk is None
        ask(note, "save")
    assert [note.pk for note in notes] == [1, 2]
    Note(id=3).save()  # by hand: the count goes on behind it
    ask(note := Note(), "save")
    assert note.pk == 4
    Note(id=9).save()
    made = ask(Note.objects, "bulk_create", [Note(), Note(id=20), Note()])
    assert [note.pk for note in made] == [21, 20, 22] and Note.objects.count() == 8
    ask(note := Note(), "save", force=True)
    assert note.pk == 23


def test_objects_without_an_id_have_no_hash_and_equal_only_themselves(alias: Place) -> None:
    note = Note()
    assert note == note and note != Note() and not note._is_pk_set()
    with pytest.raises(TypeError, match=r"without a key"):
        hash(note)
    assert Note(id=1) == Note(id=1) and Note(id=1) != Account(owner=1)


def test_keys_of_several_fields(alias: Place, ask: Ask) -> None:
    visit = Visit(day="2024-02-03", number=7)
    ask(visit, "save")
    found = ask(Visit.objects, "get", day="2024-02-03", number=7)
    assert found.page == "" and found.pk == (found.day, 7)
    found.pk = (found.day, 8)
    ask(found, "save")
    assert Visit.objects.count() == 2
    with pytest.raises(kv.DuplicateValue) as caught:
        ask(Visit(day="2024-02-03", number=7), "save")
    assert caught.value.fields == ("day", "number")


def test_another_alias_has_other_objects(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ask(ann, "save")
    ask(ann, "save", using="other")
    assert ann._state.db == "other"
    Account.objects.get(pk="ann").delete()
    assert Account.objects.count() == 0 and Account.objects.using("other").get(pk="ann").money == 1
    assert drift(alias.engine, Account, "other") == []
    ask(ann, "delete")
    assert Account.objects.using("other").count() == 0


def test_keys_that_are_too_long_name_the_field(alias: Place, ask: Ask) -> None:
    long = "x" * 1200
    with pytest.raises(KeyTooLong, match=r"saving.Account.owner takes 1,\d+ bytes.* the key takes .* limit is 1,024"):
        ask(account(long), "save")
    with pytest.raises(KeyTooLong, match=r"saving.Account.email takes .* index email takes"):
        ask(account(email=long), "save")
    with pytest.raises(KeyTooLong, match=r"saving.Account.owner"):
        ask(Account.objects, "bulk_create", [account(), account(long)])
    assert Account.objects.count() == 0


def test_wrong_values_name_the_field_and_change_nothing(alias: Place, ask: Ask) -> None:
    ann = account(money=1)
    ann.save()
    for name, value, reason in (
        ("money", "many", "must be an integer"),
        ("money", -1, "not between 0 and"),
        ("money", None, "not null"),
        ("money", 2**63, "not between 0 and"),
        ("rate", "12345.67", "more than 5 digits"),
        ("owner", None, "not null"),
        ("city", "\ud800", "no stored form|surrogates"),
    ):
        setattr(ann, name, value)
        with pytest.raises(kv.InvalidValue, match=rf"saving.Account.{name} does not take .*({reason})") as caught:
            ask(ann, "save")
        assert caught.value.field == name and "Nothing was changed" in str(caught.value)
        ann = Account.objects.get(pk="ann")
    with pytest.raises(kv.InvalidValue, match=r"only update\(\) and save"):
        ask(account(money=kv.F("money") + 1), "save")
    assert Account.objects.get(pk="ann").money == 1


def test_unknown_names_are_refused(alias: Place) -> None:
    with pytest.raises(TypeError, match=r"no field 'mony'. Did you mean 'money'"):
        Account(mony=1)
    assert Account(pk="ann").owner == "ann"


def test_signals(alias: Place, ask: Ask) -> None:
    told: list[tuple[str, Any]] = []
    receivers = []
    for name in ("pre_save", "post_save", "pre_delete", "post_delete"):

        def receive(sender: Any, instance: Any, name: str = name, **more: Any) -> None:
            assert sender is Account and more["using"] == "default"
            told.append((name, more.get("created"), instance._state.adding))

        getattr(kv, name).connect(receive, sender=Account)
        receivers.append((getattr(kv, name), receive))
    try:
        ann = account()
        ask(ann, "save")
        ask(ann, "save")
        ask(ann, "save", update_fields=["money"])
        ask(ann, "delete")
        ask(Account.objects, "bulk_create", [account("bob")])  # silent, as in Django
        ask(Note(), "save")  # of another sender
    finally:
        for signal, receive in receivers:
            signal.disconnect(receive, sender=Account)
    assert told == [
        ("pre_save", None, True),
        ("post_save", True, False),
        ("pre_save", None, False),
        ("post_save", False, False),
        ("pre_save", None, False),
        ("post_save", False, False),
        ("pre_delete", None, False),
        ("post_delete", None, True),
    ]


def test_a_receiver_that_raises_stops_the_save(alias: Place, ask: Ask) -> None:
    def refuse(**told: Any) -> None:
        raise PermissionError

    kv.pre_save.connect(refuse, sender=Account)
    try:
        with pytest.raises(PermissionError):
            ask(account(), "save")
    finally:
        kv.pre_save.disconnect(refuse, sender=Account)
    assert Account.objects.count() == 0


def test_copies_and_pickles(alias: Place) -> None:
    ann = account(money=3)
    ann.save()
    for other in (copy.copy(ann), copy.deepcopy(ann), pickle.loads(pickle.dumps(ann))):
        assert other == ann and other.revision == ann.revision and other.money == 3
    other.money = 4
    other.save()
    assert Account.objects.get(pk="ann").money == 4 and ann.money == 3


def test_bulk_inserts_are_whole_blocks(alias: Place, ask: Ask) -> None:
    account("b").save()
    with pytest.raises(kv.DuplicateValue, match=r"owner='b'"):
        ask(Account.objects, "bulk_create", [account(owner) for owner in "cba"], batch_size=1)
    assert [each.owner for each in Account.objects.all()] == ["b", "c"]
    with pytest.raises(kv.DuplicateValue, match=r"owner='d'"):
        ask(Account.objects, "bulk_create", [account(owner) for owner in "dd"])
    made = ask(Account.objects, "bulk_create", [account(owner) for owner in "abcde"], ignore_conflicts=True)
    assert [each._state.adding for each in made] == [False, True, True, False, False]
    assert Account.objects.count() == 5


def test_what_is_left_out_claims_nothing(alias: Place, ask: Ask) -> None:
    account("a").save()
    ask(
        Account.objects,
        "bulk_create",
        [account("a", street="x", email="e@example.org"), account("b", email="e@example.org")],
        ignore_conflicts=True,
    )
    assert Account.objects.get(email="e@example.org").owner == "b"


def test_records_are_not_evictable_and_clear_does_not_reach_them(alias: Place) -> None:
    account(email="a@example.org").save()
    cache = caches["default"]
    cache.set("key", "value")
    cache.clear()
    alias.engine.execute("clear", 0, True)
    tycoon = KyotoTycoon(alias.location())
    tycoon.clear()
    assert Account.objects.get(pk="ann").email == "a@example.org"
    records = listed(alias.engine, MODELS_BASE, b"")
    assert len(records) == 6  # a record, four entries, the schema
    assert {record[1] for record in records.values()} == {0}  # no flag
    assert list(cache.iter_keys("*")) == [] and tycoon.match_prefix("") == [] and tycoon.count() == 0
    assert alias.keyspace_client().count(b"") == 0
    tycoon.close()
