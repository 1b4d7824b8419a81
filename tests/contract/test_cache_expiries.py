"""Contract of the cache's methods for deadlines that hang on names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_keyspace.exceptions import InvalidArgument, InvalidKey
from django_keyspace.status import Status
from tests.contract.faces import Face

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("set_expiry", "remove_expiry", "ttl")
def test_a_deadline_of_a_name(face: Face) -> None:
    assert face.set_expiry("k", 60) is True
    face.set("k", "first", None)
    assert 55 < face.ttl("k") <= 60
    face.set("k", "second", 600)
    face.delete("k")
    face.set("k", "third", 600)
    assert 55 < face.ttl("k") <= 60, "it outlives values"
    face.rename("k", "moved")
    assert 595 < face.ttl("moved") <= 600, "and stays with the name"
    face.rename("moved", "k")
    assert face.remove_expiry("k") == 1
    assert 595 < face.ttl("k") <= 600
    assert face.remove_expiry("k") == 0
    assert face.status_of_last_call is Status.SUCCESS


@covers("set_expiry", "clear_expiries")
def test_versions_and_prefixes_have_names_of_their_own(make_face: Any) -> None:
    face, other = make_face(), make_face(params={"KEY_PREFIX": "other"})
    face.set_expiry("k", 60)
    face.set_expiry("k", 90, version=2)
    other.set("k", 1, None)
    face.set("k", 1, None)
    face.set("k", 1, None, version=2)
    assert (face.ttl("k") or 0) <= 60 < (face.ttl("k", version=2) or 0)
    assert other.ttl("k") is None
    other.set_expiry("k", 60)
    assert face.clear_expiries() == 3
    assert face.ttl("k") is face.ttl("k", version=2) is other.ttl("k") is None


@covers("set_expiry")
@pytest.mark.parametrize("timeout", [0, -5, -0.5, timedelta(seconds=-1)])
def test_a_deadline_that_is_over_fires_at_once(face: Face, timeout: Any) -> None:
    face.set("k", 1, None)
    face.set_expiry("k", timeout)
    assert face.get("k") is None
    face.set("k", 2, None)
    assert face.ttl("k") is None


@covers("set_expiry")
@pytest.mark.parametrize("timeout", [None, "60", float("nan"), float("inf"), True, [], 10**30])
def test_bad_timeouts_are_refused(face: Face, timeout: Any) -> None:
    face.set("k", 1, None)
    with pytest.raises(InvalidArgument, match="Nothing was changed"):
        face.set_expiry("k", timeout)
    assert face.ttl("k") is None


@covers("set_expiry", "remove_expiry")
@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
@pytest.mark.parametrize("key", ["", b"k", None, ["k"], "k" * 1025])
def test_bad_keys_are_refused(face: Face, key: Any) -> None:
    with pytest.raises(InvalidKey):
        face.set_expiry(key, 60)
    with pytest.raises(InvalidKey):
        face.remove_expiry(key)
    assert face.status()["expiries"] == 0


@covers("batch")
def test_in_a_batch(face: Face) -> None:
    with face.block("batch") as batch:
        replies = [batch.set_expiry("k", 60), batch.set("k", 1, None), batch.ttl("k"), batch.remove_expiry("k")]
        replies += [batch.clear_expiries(), batch.ttl("k")]
    results = [reply.result for reply in replies]
    assert results[:2] == [True, True] and 55 < results[2] <= 60
    assert results[3:] == [1, 0, None]
