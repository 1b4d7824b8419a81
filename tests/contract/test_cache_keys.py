"""Contract of the cache's keys: what every method refuses, warns about, and leaves alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from django.core.cache.backends.base import CacheKeyWarning

from django_keyspace.exceptions import InvalidKey, KeyTooLong
from tests.contract.faces import Face

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

BAD_KEYS = [
    ("", InvalidKey),
    (None, InvalidKey),
    (b"bytes", InvalidKey),
    ([1], InvalidKey),
    ({}, InvalidKey),
    (("a", "b"), InvalidKey),
    ("\ud800", InvalidKey),
    ("k" * 1022, KeyTooLong),
    ("ü" * 511, KeyTooLong),
]

ONE_KEY: dict[str, tuple[object, ...]] = {
    "get": (),
    "set": (1,),
    "add": (1,),
    "touch": (),
    "delete": (),
    "has_key": (),
    "incr": (),
    "decr": (),
    "incr_version": (),
    "decr_version": (),
    "get_or_set": (1,),
    "ttl": (),
    "pttl": (),
    "expire": (5,),
    "expire_at": (9e9,),
    "persist": (),
    "incr_float": (),
    "incr_double": (),
    "append": ("x",),
    "get_with_revision": (),
    "cas": (None, 1),
    "test_and_set": (None, 1),
    "rename": ("other",),
    "remove": (),
    "pop": (),
    "length": (),
}


@covers(*ONE_KEY, "get_many", "delete_many")
@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
@pytest.mark.parametrize(("key", "error"), BAD_KEYS, ids=lambda value: repr(value)[:10])
def test_bad_keys_are_refused_by_every_method_and_change_nothing(
    face: Face, key: object, error: type[Exception]
) -> None:
    face.set("other", 1)
    for method, args in ONE_KEY.items():
        with pytest.raises(error):
            getattr(face, method)(key, *args)
    with pytest.raises(error):
        face.rename("other", key)
    for method in (face.get_many, face.delete_many):
        with pytest.raises(error):
            method(["other", key])
    if key.__hash__:
        with pytest.raises(error):
            face.set_many({"new": 1, key: 2})
    assert face.list_key_values() == {"other": 1}


@covers("set", "get")
@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_the_longest_key_works(face: Face) -> None:
    for key in ("k" * 1021, "ü" * 510):
        face.set(key, 1)
        assert face.get(key) == 1
        assert face.keys(key) == [key]
    assert face.delete_pattern("k" * 1000 + "*") == 1


@covers("set", "get", "get_many")
@pytest.mark.parametrize("key", ["with space", "new\nline", "\x7f", "x" * 251])
def test_keys_that_memcached_would_refuse_are_warned_about(face: Face, key: str) -> None:
    with pytest.warns(CacheKeyWarning):
        face.set(key, 1)
    with pytest.warns(CacheKeyWarning):
        assert face.get(key) == 1
    with pytest.warns(CacheKeyWarning):
        assert face.get_many([key]) == {key: 1}


@covers("set", "get")
@pytest.mark.parametrize("key", ["plain", "ünï", "a:b/c?d=e", "日本語", "x" * 240])
def test_ordinary_keys_are_not_warned_about(face: Face, key: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        face.set(key, 1)
        assert face.get(key) == 1


def empty_key(key: str, prefix: str, version: int) -> str:
    return ""


@covers("set")
def test_a_key_function_that_returns_nothing_useful(make_face: Callable[..., Face]) -> None:
    face = make_face(params={"KEY_FUNCTION": empty_key})
    with pytest.raises(InvalidKey):
        face.set("k", 1)
