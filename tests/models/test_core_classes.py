"""How classes become models: Meta, inheritance, what is refused and with which words, and the system checks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Tags
from django.core.checks.registry import registry as check_registry
from django.core.exceptions import AppRegistryNotReady, FieldDoesNotExist
from django.db import models as f
from django.test import override_settings

from django_keyspace import checks, kv
from django_keyspace.backend.models import registry
from django_keyspace.backend.models.options import META
from django_keyspace.exceptions import ConfigurationError, InvalidArgument
from tests.contract.engines import Place
from tests.models.samples import Note, Person, Visit

OURS = "django_keyspace.backend.KeyspaceCache"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Forget the models that a test has defined."""
    known = registry.get_models()
    yield
    for model in registry.get_models():
        if model not in known:
            registry.forget(model)


def define(name: str = "Thing", bases: tuple[Any, ...] = (kv.Model,), meta: Any = None, **attributes: Any) -> Any:
    """A model of an app "classes"."""
    body = {"__module__": __name__, "__qualname__": f"{name}{id(attributes)}", **attributes}
    if meta is not False:
        body["Meta"] = type("Meta", (), {"app_label": "classes", **(meta or {})})
    return type(kv.Model)(name, bases, body)


def test_what_meta_says() -> None:
    meta = Person._meta
    assert (meta.label, meta.label_lower, meta.prefix) == ("samples.Person", "samples.person", "samples.person")
    assert (meta.verbose_name, meta.verbose_name_plural) == ("person", "persons")
    assert meta.pk is not None and meta.pk.name == "name" and meta.get_field("pk") is meta.pk
    assert set(meta.indexes) == {"email", "seen", "city,age", "height", "balance"}
    assert [name for name, index in meta.indexes.items() if index.unique] == ["email"]
    assert Visit._meta.pk is None and Visit._meta.key_names == ("day", "number")
    assert Note._meta.pk.name == "id" and set(Note._meta.indexes) == {"rank"}
    assert registry.get_model("samples.PERSON") is Person and Person in registry.get_models("samples")
    with pytest.raises(FieldDoesNotExist, match="Did you mean 'city'"):
        meta.get_field("citty")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"meta": {"keys": "a"}}, r"Meta has no option 'keys'. Did you mean 'key'\?"),
        ({"meta": {"key": "b"}, "a": f.IntegerField()}, "Meta.key names 'b', which is no field"),
        ({"meta": {"key": ("a", "a")}, "a": f.IntegerField()}, "names a field twice"),
        ({"meta": {"indexes": ["b"]}}, "Meta.indexes names 'b'"),
        ({"meta": {"indexes": [3]}}, "takes names of fields"),
        ({"meta": {"unique": ["b"]}}, "Meta.unique names 'b'"),
        ({"meta": {"ordering": ["-b"]}}, "Meta.ordering names 'b'"),
        ({"meta": {"timeout": 0}}, "Meta.timeout must be more than nothing"),
        ({"meta": {"timeout": "soon"}}, "Meta.timeout"),
        ({"meta": {"version": 0}}, "Meta.version must be an integer from 1 on"),
        ({"meta": {"prefix": "a\0b"}}, "Meta.prefix must be text"),
        ({"meta": {"prefix": "x" * 201}}, "Meta.prefix must be text of 1 to 200 bytes"),
        ({"save": f.IntegerField()}, "kv.Model has its own 'save'"),
        ({"_a": f.IntegerField()}, "leading underscore"),
        ({"a__b": f.IntegerField()}, "two underscores"),
        ({"id": f.IntegerField()}, "has a field \"id\" and no key"),
        ({"meta": {"key": "a"}, "a": f.IntegerField(), "n": f.AutoField()}, "it must be the key, alone"),
        ({"a": f.ForeignKey("auth.User", f.CASCADE)}, "cannot point at rows of a table"),
        ({"a": f.ManyToManyField("auth.User")}, "store a list of keys"),
    ],
)  # fmt: skip
def test_what_is_refused(attributes: dict[str, Any], words: str) -> None:
    before = registry.get_models()
    with pytest.raises(ConfigurationError, match=words):
        define(**attributes)
    assert registry.get_models() == before


def test_the_page_has_every_option_of_meta() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("### Meta")[2].partition("###")[0]
    told = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert told == set(META)


def test_two_classes_with_one_name_or_prefix() -> None:
    define("One")
    with pytest.raises(ConfigurationError, match=r"Two models are called classes\.One"):
        define("One")
    with pytest.raises(ConfigurationError, match=r"classes\.Two and classes\.One both keep .* prefix 'classes\.one'"):
        define("Two", meta={"prefix": "classes.one"})
    assert define("Two", meta={"prefix": "classes.one", "using": "other"})._meta.using == "other"


def test_a_class_in_no_app() -> None:
    with pytest.raises(ConfigurationError, match=r"is in no app of INSTALLED_APPS.*or give Meta.app_label"):
        define(meta=False)


def test_abstract_classes(alias: Place) -> None:
    base = define("Base", meta={"abstract": True, "timeout": 60, "indexes": ["rank"]}, rank=f.IntegerField(default=0))
    assert base not in registry.get_models()
    for use in (base, base._storage):
        with pytest.raises((TypeError, InvalidArgument), match="is abstract"):
            use()
    child = define("Child", (base,), meta=False, text=f.CharField(max_length=9, default=""))
    assert set(child._meta.field_names) == {"id", "rank", "text"}
    assert child._meta.timeout == 60 and set(child._meta.indexes) == {"rank"} and not child._meta.abstract
    other = define("Other", (base,), meta={"key": "rank"})
    assert other._meta.timeout is None  # a Meta of its own that does not inherit
    assert child._meta.get_field("rank") is not other._meta.get_field("rank")
    child.objects.create(rank=3)
    assert child.objects.get(rank=3).ttl() is not None and other.objects.count() == 0
    with pytest.raises(ConfigurationError, match="inherits from Child, which is not abstract"):
        define("Grandchild", (child,))


def test_a_meta_that_inherits() -> None:
    base = define("Base", meta={"abstract": True, "timeout": 60, "indexes": ["rank"]}, rank=f.IntegerField(default=0))
    body = {"Meta": type("Meta", (base.Meta,), {"verbose_name": "child of it"})}
    child = define("Child", (base,), meta=False, **body)
    assert not child._meta.abstract and child._meta.verbose_name == "child of it"
    assert child._meta.timeout == 60 and set(child._meta.indexes) == {"rank"} and child._meta.prefix == "classes.child"
    text = define("Text", (base,), rank=f.CharField(max_length=9))
    assert text._meta.get_field("rank").max_length == 9
    assert define("Bare", (base,), rank=None)._meta.field_names == ("id",)


def test_methods_and_managers_are_inherited(alias: Place) -> None:
    class Ranked(kv.Manager):
        def best(self) -> Any:
            return self.order_by("-rank").first()

    def shout(self: Any) -> str:
        return f"{self.rank}!"

    base = define("Base", meta={"abstract": True}, rank=f.IntegerField(default=0), ranked=Ranked(), shout=shout)
    child = define("Child", (base,), meta=False)
    child.ranked.bulk_create([child(rank=rank) for rank in (1, 3, 2)])
    assert child.ranked.best().shout() == "3!"
    with pytest.raises(AttributeError, match="belongs to the class"):
        child(rank=1).ranked  # noqa: B018


@pytest.mark.parametrize("field", [f.JSONField(), f.FileField()], ids=["json", "file"])
@pytest.mark.parametrize("option", ["indexes", "unique", "key"])
def test_fields_without_an_order(alias: Place, field: Any, option: str) -> None:
    model = define(meta={option: ["a"]}, a=field.clone())
    assert [message.id for message in checks.check_models() if message.obj is model] == ["keyspace.E103"]
    with pytest.raises(ConfigurationError, match=r"classes\.Thing\.a is a \w+, whose values have no order"):
        model.objects.count()


def test_a_key_that_may_be_none(alias: Place) -> None:
    model = define(meta={"key": "a"}, a=f.IntegerField(null=True))
    (message,) = [message for message in checks.check_models() if message.obj is model]
    assert message.id == "keyspace.E104" and "may be None" in message.msg


def test_aliases_that_are_not_ours(alias: Place, settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    for using, words in (("nowhere", "is not in CACHES"), ("locmem", "LocMemCache")):
        model = define(using.title(), meta={"using": using})
        (message,) = [message for message in checks.check_models() if message.obj is model]
        assert message.id == "keyspace.E102" and words in message.msg
        with pytest.raises(ConfigurationError, match=words):
            model.objects.count()
    with pytest.raises(ConfigurationError, match="'nowhere', which is not in CACHES"):
        Person.objects.using("nowhere").count()


def test_checks_of_places(tmp_path: Any) -> None:
    one = define("One", meta={"prefix": "same"})
    two = define("Two", meta={"prefix": "same", "using": "other"})
    define("Three", meta={"prefix": "else", "using": "other"})

    def check(**of_other: Any) -> list[Any]:
        options = {"durability": "commit"}
        caches = {
            "default": {"BACKEND": OURS, "LOCATION": str(tmp_path / "store"), "OPTIONS": options},
            "other": {"BACKEND": OURS, "LOCATION": str(tmp_path / "store"), "OPTIONS": {**options, **of_other}},
        }
        with override_settings(CACHES=caches):
            return [message for message in checks.check_models() if message.id != "keyspace.E102"]

    (message,) = check()
    assert message.id == "keyspace.E101" and message.obj in (one, two) and "classes.One" in message.msg
    assert check(database=1) == []
    (message,) = check(database=1, durability="interval")
    assert message.id == "keyspace.W101" and "CACHES['other']" in message.msg
    assert check(database=-1) == []  # which check_aliases tells
    assert list(tmp_path.iterdir()) == []
    assert checks.check_models in check_registry.registered_checks and Tags.models in checks.check_models.tags
    assert checks.check_models(app_configs=[]) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class A(kv.Model): pass", "is defined before Django knows its apps"),
        (
            "class A(kv.Model):\n class Meta: app_label = 'a'\nA.objects.count()",
            "used before Django has loaded the apps",
        ),
        ("class A(kv.Model):\n class Meta: app_label = 'a'\nA().save()", "used before Django has loaded the apps"),
    ],
)
def test_before_the_apps_are_ready(code: str, words: str) -> None:
    program = (
        "from django.conf import settings\n"
        f"settings.configure(CACHES={{'default': {{'BACKEND': '{OURS}', 'LOCATION': 'never-made'}}}})\n"
        f"from django_keyspace import kv\n{code}"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "ModelsNotReady" in ended.stderr and words in ended.stderr
    assert issubclass(kv.ModelsNotReady, AppRegistryNotReady)
