"""The documentation says what the code does: tables are compared with the code, examples are run, links lead somewhere.

Every ``python`` block of the pages in :data:`EXECUTED` runs, in order, in one namespace per page, on a cache in a temporary
folder. A line ``expression  # -> value`` is compared with the value's repr; ``...`` stands for anything. A block is left out
only by ``<!-- not run: reason -->`` on the line before it. Examples in the tables of methods run too, once with the sync
methods and once with their async twins.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache as default_cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.test import modify_settings, override_settings

from django_keyspace import checks, exceptions, operations
from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.degrade import MISS_ANSWERS
from django_keyspace.conf import OPTIONS, Config, make_config
from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.status import Status
from django_keyspace.store.options import StoreOptions

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXECUTED = [
    "README.md",
    "docs/cache.md",
    "docs/models-tutorial.md",
    "docs/models.md",
    "docs/scripts.md",
    "docs/settings.md",
    "docs/consistency.md",
    "docs/durability.md",
]

# --- Reading pages ----------------------------------------------------------------------------------------------------


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table_rows(text: str, first: str) -> list[list[str]]:
    """The rows of every table whose first column is headed so, as lists of cells without the heading."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            rows.append(cells)
    return rows


def codes(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins at, and why it is not run, if so."""

    language: str
    text: str
    line: int
    left_out: str = ""


def blocks(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.startswith("```"):
            body = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                body.append(inner)
            left_out = re.fullmatch(r"<!-- not run: (.+) -->", before)
            yield Block(line[3:].strip(), "\n".join(body), number, left_out[1] if left_out else "")
        before = line


# --- Running examples -------------------------------------------------------------------------------------------------

_ELLIPSIS = doctest.OutputChecker()
_PROMISE = re.compile(r"#\s*->\s*(.+)$")


class Mismatch(AssertionError):
    """An example has another result than the page says."""


def compare(source: str, value: Any, wanted: str) -> None:
    if not _ELLIPSIS.check_output(f"{wanted}\n", f"{value!r}\n", doctest.ELLIPSIS):
        raise Mismatch(f"{source} is {value!r}, and the page says {wanted}")


def execute(tree: ast.Module, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
    """Execute a module in a namespace; ``await`` may be used at its top level."""
    code = compile(ast.fix_missing_locations(tree), "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        loop.run_until_complete(types.FunctionType(code, namespace)())
    else:
        exec(code, namespace)


def evaluate(source: str, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """The value of an expression."""
    tree = ast.parse(f"_value = {source}")
    execute(tree, namespace, loop)
    return namespace["_value"]


def check_example(source: str, wanted: str, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
    compare(source, evaluate(source, namespace, loop), wanted)


class _Promises(ast.NodeTransformer):
    """Replaces each ``expression  # -> value`` by a call that compares them where they stand."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.compared = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        promise = _PROMISE.search(self.lines[(node.end_lineno or node.lineno) - 1])
        if promise is None:
            return node
        self.compared += 1
        arguments = [ast.Constant(ast.unparse(node.value)), node.value, ast.Constant(promise[1].strip())]
        call = ast.Call(ast.Name("_compare", ast.Load()), arguments, [])
        return ast.copy_location(ast.Expr(call), node)


def run_block(text: str, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> int:
    """Run a block. The number of results that it promises, all of which held."""
    promises = _Promises(text)
    tree = promises.visit(ast.parse(text))
    namespace["_compare"] = compare
    execute(tree, namespace, loop)
    return promises.compared


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@contextlib.contextmanager
def configured(caches: dict[str, Any]) -> Iterator[None]:
    """``CACHES`` for a test; its stores are closed afterwards by the fixture ``store_folder``."""
    with override_settings(CACHES=caches):
        yield


def our_cache(folder: Path | str, **options: Any) -> dict[str, Any]:
    entry = {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": str(folder), "OPTIONS": options}
    return {"default": entry}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed app ``shop``, in whose ``models.py`` the pages' models stand; nobody knows them afterwards."""
    from django_keyspace.backend.models import registry

    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    with modify_settings(INSTALLED_APPS={"append": "shop"}):
        yield
    sys.modules.pop("shop", None)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", EXECUTED)
def test_blocks_run(name: str, store_folder: Path, loop: asyncio.AbstractEventLoop) -> None:
    namespace: dict[str, Any] = {"__name__": "shop.models", "BASE_DIR": store_folder}
    compared = ran = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(configured(our_cache(store_folder)))
        for block in blocks(read(name)):
            if block.language != "python" or block.left_out:
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    compared += run_block(block.text, namespace, loop)
            except Exception as error:
                raise AssertionError(f"{name}, block at line {block.line}: {error!r}") from error
            ran += 1
            if "CACHES" in namespace:
                # The settings that the page shows are those that its next blocks run with.
                stack.enter_context(configured(namespace.pop("CACHES")))
                assert default_cache.set("from-the-page", 1)
            if "OPTIONS" in namespace:
                make_config(str(store_folder), namespace.pop("OPTIONS"))
    assert ran
    if name in ("README.md", "docs/cache.md", "docs/models-tutorial.md"):
        assert compared >= 5


@pytest.mark.parametrize(
    "promise", ["1 + 1  # -> 3", "await_me = 1\nawait_me  # -> '1'", "if 1:\n    1  # -> 2", "1  # -> ..2"]
)
def test_a_wrong_result_is_noticed(promise: str, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(Mismatch):
        run_block(promise, {}, loop)


def test_blocks_are_left_out_by_a_marker_with_a_reason_only() -> None:
    text = "<!-- not run: needs a node -->\n```python\na\n```\n<!-- later -->\n```python\nb\n```\n```sh\nc\n```\n"
    found = list(blocks(text))
    assert [block.text for block in found] == ["a", "b", "c"]
    assert [bool(block.left_out) for block in found] == [True, False, False]


# --- docs/cache.md ----------------------------------------------------------------------------------------------------

BASE_METHODS = {"make_key", "validate_key", "make_and_validate_key", "get_backend_timeout"}


def method_rows() -> list[list[str]]:
    return table_rows(read("docs/cache.md"), "Method")


def signature_text(method: Any) -> str:
    """A method's arguments with their defaults, as the tables have them."""
    parts: list[str] = []
    starred = False
    for name, parameter in list(inspect.signature(method).parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            parts.append(f"**{name}")
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        if parameter.default is parameter.empty:
            parts.append(name)
        else:
            default = "DEFAULT_TIMEOUT" if parameter.default is DEFAULT_TIMEOUT else repr(parameter.default)
            parts.append(f"{name}={default}")
    return ", ".join(parts)


def public_methods() -> dict[str, Any]:
    names = [name for name in dir(KeyspaceCache) if not name.startswith("_")]
    return {name: getattr(KeyspaceCache, name) for name in names if callable(getattr(KeyspaceCache, name))}


def test_every_method_is_documented_with_its_arguments() -> None:
    methods = public_methods()
    documented, twins = {}, {}
    for cells in method_rows():
        name, arguments = re.fullmatch(r"(\w+)\((.*)\)", codes(cells[0])[0]).groups()  # type: ignore[union-attr]
        documented[name] = arguments
        twins[name] = codes(cells[1])[0] if codes(cells[1]) else ""
    has_twin = {name for name in methods if f"a{name}" in methods}
    assert set(documented) == set(methods) - {f"a{name}" for name in has_twin} - BASE_METHODS
    for name, arguments in documented.items():
        assert arguments == signature_text(methods[name]), name
        if name in has_twin:
            assert twins[name] == f"a{name}"
            assert signature_text(methods[f"a{name}"]) == arguments
        else:
            assert not twins[name].startswith("a") or twins[name] == "async with", name


def test_every_property_is_documented() -> None:
    properties = [name for name in dir(KeyspaceCache) if isinstance(getattr(KeyspaceCache, name), property)]
    assert properties
    for name in properties:
        assert f"`cache.{name}`" in read("docs/cache.md")


def as_async(source: str) -> str:
    """An example with the async twins in the place of the sync methods."""
    if " for key in cache.iter_keys(" in source:
        return source.replace(" for key in cache.iter_keys(", " async for key in cache.aiter_keys(")
    tree = ast.parse(source, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("cache."):
            call = ast.unparse(node)
            return ast.unparse(tree).replace(call, f"(await cache.a{call.removeprefix('cache.')})")
    return source


def method_examples() -> list[tuple[str, str]]:
    found = []
    for cells in method_rows():
        if len(cells) > 3:
            found += re.findall(r"`([^`]+)` → `([^`]+)`", cells[3])
    return found


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_examples_of_the_methods(is_async: bool, store_folder: Path, loop: asyncio.AbstractEventLoop) -> None:
    examples = method_examples()
    assert len(examples) >= 45
    with configured(our_cache(store_folder)):
        for source, wanted in examples:
            check_example(as_async(source) if is_async else source, wanted, {"cache": default_cache}, loop)


def test_async_examples_use_the_async_methods() -> None:
    assert as_async('round(cache.ttl("a"))') == "round((await cache.attl('a')))"
    assert as_async('[key for key in cache.iter_keys("*:3")]') == '[key async for key in cache.aiter_keys("*:3")]'
    rewritten = [source for source, _ in method_examples() if as_async(source) != source]
    assert len(rewritten) == len(method_examples())


def test_each_method_has_an_example() -> None:
    sources = " ".join(source for source, _ in method_examples()) + read("docs/cache.md")
    for cells in method_rows():
        name = codes(cells[0])[0].partition("(")[0]
        assert f"cache.{name}(" in sources or name == "shutdown", name


def test_statuses() -> None:
    rows = {codes(cells[0])[0]: int(cells[1]) for cells in table_rows(read("docs/cache.md"), "Status")}
    assert rows == {status.name: int(status) for status in Status}


def outage_rows() -> dict[str, tuple[str, str]]:
    rows = table_rows(read("docs/cache.md"), "Operation")
    return {cells[0]: (codes(cells[1])[0], cells[2]) for cells in rows}


def test_every_operation_says_what_an_outage_makes_of_it() -> None:
    internal = {"cull", "sweep", "evict", "once", "expire_sessions"}
    assert set(outage_rows()) == set(operations.OPERATIONS) - internal
    raising = {name for name, (_, answer) in outage_rows().items() if answer == "the error"}
    assert raising == set(operations.OPERATIONS) - set(MISS_ANSWERS) - internal


def test_answers_during_an_outage(store_folder: Path, loop: asyncio.AbstractEventLoop) -> None:
    with socket.socket() as listener:  # bound and not listening: nobody answers there
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        caches = our_cache(f"keyspace://127.0.0.1:{port}/0", on_error="miss")
        with configured(caches):
            namespace = {"cache": default_cache}
            for source, answer in outage_rows().values():
                if answer == "the error" and "atomic" not in source:
                    with pytest.raises(KeyspaceError):
                        evaluate(source, namespace, loop)
                elif codes(answer) and hasattr(exceptions, codes(answer)[0]):
                    with pytest.raises(getattr(exceptions, codes(answer)[0])):
                        evaluate(source, namespace, loop)
                elif codes(answer):
                    check_example(source, codes(answer)[0], namespace, loop)
            with default_cache.batch() as batch:
                reply = batch.set("k", 1)
            with pytest.raises(exceptions.NoConnection):
                _ = reply.result
            with pytest.raises(exceptions.NoConnection), default_cache.atomic() as block:
                block.set("k", 1)


# --- docs/settings.md -------------------------------------------------------------------------------------------------


def option_rows() -> dict[str, list[str]]:
    return {codes(cells[0])[0]: cells for cells in table_rows(read("docs/settings.md"), "Option")}


def option_default(name: str) -> Any:
    defaults = {field.name: field.default for field in (*fields(StoreOptions), *fields(Config))}
    return defaults[name.lower()]


def is_legal(location: str, **options: Any) -> bool:
    try:
        make_config(location, options)
    except ConfigurationError:
        return False
    return True


def test_every_option_is_documented_with_its_default() -> None:
    rows = option_rows()
    assert set(rows) == set(OPTIONS)
    for name, cells in rows.items():
        assert ast.literal_eval(codes(cells[3])[0]) == option_default(name), name


def test_options_take_what_the_page_says(tmp_path: Path) -> None:
    for name, cells in option_rows().items():
        numbers = re.fullmatch(r"integer, (?:from )?([\d,]+)(?: to ([\d,]+))?", cells[2])
        if numbers:
            least = int(numbers[1].replace(",", ""))
            others: dict[str, Any] = {"databases": 1024} if name == "database" else {}
            assert is_legal(str(tmp_path), **others, **{name: least}), name
            assert not is_legal(str(tmp_path), **others, **{name: least - 1}), name
            if numbers[2]:
                most = int(numbers[2].replace(",", ""))
                assert is_legal(str(tmp_path), **others, **{name: most}), name
                assert not is_legal(str(tmp_path), **others, **{name: most + 1}), name
        elif "callable" in cells[2]:
            assert is_legal(str(tmp_path), **{name: "os.path.basename"})
            assert not is_legal(str(tmp_path), **{name: 7})
        else:
            for choice in codes(cells[2]):
                assert is_legal(str(tmp_path), **{name: ast.literal_eval(choice)}), name
            assert not is_legal(str(tmp_path), **{name: "something else"}), name


def test_options_of_the_store_are_marked() -> None:
    for name, cells in option_rows().items():
        value = option_default(name)
        if name in ("MAX_ENTRIES", "reverse_key_function"):
            value = {"MAX_ENTRIES": 1, "reverse_key_function": str}[name]
        is_taken = is_legal("keyspace://127.0.0.1:7080/0", **{name: value})
        is_taken_by_a_folder = is_legal("/folder", **{name: value})
        expected = {(True, True): "both", (False, True): "embedded", (True, False): "node"}
        assert cells[1] == expected[is_taken, is_taken_by_a_folder], name


def test_locations_of_the_page_are_legal() -> None:
    rows = table_rows(read("docs/settings.md"), "Form")
    assert len(rows) >= 3
    for cells in rows:
        assert is_legal(codes(cells[0])[0]), cells[0]


def test_system_checks_are_documented() -> None:
    rows = {codes(cells[0])[0] for cells in table_rows(read("docs/settings.md"), "Id")}
    assert rows == set(re.findall(r"keyspace\.[EW]\d+", inspect.getsource(checks)))


# --- The other tables -------------------------------------------------------------------------------------------------


def test_operations_are_documented() -> None:
    rows = table_rows(read("docs/operations.md"), "Operation")
    documented = {cells[0]: (codes(cells[1]), cells[2], cells[3], cells[4], cells[5]) for cells in rows}
    in_code = {
        operation.name: (
            [name for name, _ in operation.parameters],
            operation.kind,
            "yes" if operation.grows else "no",
            operation.record_deadline,
            operation.overlay,
        )
        for operation in operations.OPERATIONS.values()
    }
    assert documented == in_code


def test_errors_are_documented() -> None:
    rows = table_rows(read("docs/errors.md"), "Class")
    documented = {codes(cells[0])[0]: (codes(cells[1]), codes(cells[2])) for cells in rows}
    in_code = {
        name: ([base.__name__ for base in cls.__bases__], [cls.code])
        for name, cls in vars(exceptions).items()
        if isinstance(cls, type) and issubclass(cls, KeyspaceError)
    }
    assert documented == in_code


def test_loggers_are_documented() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "django_keyspace").rglob("*.py")]
    in_code = set(re.findall(r'getLogger\("([^"]+)"\)', "".join(sources)))
    assert {codes(cells[0])[0] for cells in table_rows(read("docs/deployment.md"), "Logger")} == in_code


def test_files_of_a_store_are_documented(store_folder: Path) -> None:
    with configured(our_cache(store_folder)):
        default_cache.set("a", 1)
        names = {path.name for path in store_folder.iterdir()}
    assert names and names <= {codes(cells[0])[0] for cells in table_rows(read("docs/durability.md"), "File")}


def test_a_copy_as_the_page_makes_it_opens_as_after_another_boot(store_folder: Path, tmp_path: Path) -> None:
    """docs/durability.md, "While it runs": lmdb's tool and the state file."""
    copy = tmp_path / "copy"
    options = {"durability": "commit", "evictable": False}
    with configured(our_cache(store_folder, **options)):
        default_cache.set("kept", "value", None)
        subprocess.run(
            [sys.executable, "-m", "lmdb", "copy", "-e", store_folder, copy], check=True, capture_output=True
        )
        shutil.copy(store_folder / "keyspace.json", copy)
    state = json.loads((copy / "keyspace.json").read_text())
    (copy / "keyspace.json").write_text(json.dumps({**state, "boot_id": "another"}))
    with configured(our_cache(copy, **options)):
        assert default_cache.get("kept") == "value"


# --- Links ------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What can stand behind ``#`` in a link to a page: its headings, as hosts of Markdown write them."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", outside, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    found = []
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.is_relative_to(ROOT) or not path.exists():
            found.append(f"{target}: there is no such file")
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            found.append(f"{target}: there is no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_broken_links_are_found() -> None:
    text = "[a](docs/nothing.md) [b](#no-such-heading) [c](https://example.org/x) [d](README.md) [e](../../etc)"
    assert len(broken_links(ROOT / "README.md", text)) == 3


def test_the_index_leads_to_every_page() -> None:
    index = read("docs/index.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name
