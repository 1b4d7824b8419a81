"""Pages of modules that behave badly, and what may not get into a page."""

from __future__ import annotations

import sys
import threading

import pytest
from django.core.cache import cache


@pytest.fixture
def odd_module(site, tmp_path, monkeypatch):
    """Return a function that writes a module to an import path of this test and makes the site show it."""
    from reader import rendering

    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(rendering, "find_module", lambda name: rendering.ModuleSpec(name, None))

    def write(source: str) -> str:
        (folder / "odd_one.py").write_text(source)
        return "odd_one"

    return write


def test_what_a_module_prints_stays_out_of_its_page(odd_module):
    from reader.rendering import get_page

    page = get_page(odd_module('"""Prints."""\nimport os\nprint("noise")\nos.write(1, b"more noise")\n'))
    assert "Prints." in page.html
    assert "noise" not in page.html


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(4)", "ended the interpreter (exit code 4)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended the interpreter (exit code -9)"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_failing_import_is_an_error_that_says_why(odd_module, source, reason):
    from reader.rendering import RenderFailed, get_page

    with pytest.raises(RenderFailed) as failed:
        get_page(odd_module(source))
    assert reason in str(failed.value)
    assert cache.get("page:odd_one") is None
    # The failure is remembered for a while: no second interpreter for the next visitor.
    assert reason in cache.get("failed:odd_one")
    assert 0 < cache.ttl("failed:odd_one") <= 60


def test_a_module_that_hangs_is_given_up(odd_module, site):
    from reader.rendering import RenderFailed, get_page

    site.READER = {**site.READER, "render_timeout_s": 1}
    with pytest.raises(RenderFailed, match="longer than 1 seconds"):
        get_page(odd_module("import threading\nthreading.Event().wait()\n"))


def test_documentation_is_escaped(odd_module):
    from reader.rendering import get_page

    source = '''"""<script>alert(1)</script> & more

<img src=x onerror=alert(2)>
"""
def f(a="<b>"):
    """<script>alert(3)</script>"""
class C:
    """</pre><script>alert(4)</script>"""
DATA = "<script>alert(5)</script>"
globals()["<script>alert(6)</script>"] = lambda: None
'''
    html = get_page(odd_module(source)).html
    for number in (1, 3, 4, 5):
        assert f"alert({number})" in html
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html


def test_nothing_of_our_environment_gets_into_a_page(site, monkeypatch):
    from reader.rendering import get_page

    monkeypatch.setenv("A_TOKEN", "do-not-show-this")
    page = get_page("os")
    assert "environ" in page.html
    assert "A_TOKEN" not in page.html
    assert "do-not-show-this" not in page.html


def test_a_page_is_stored_as_a_plain_string(site):
    from reader.rendering import get_page

    made = get_page("colorsys")
    assert type(made.html) is str
    kept = get_page("colorsys")
    assert (kept.is_hit, kept.html, kept.cold_ms) == (True, made.html, made.cost_ms)
    assert type(cache.get("page:colorsys")) is str


def test_visitors_who_come_together_render_a_page_once(site, monkeypatch):
    from reader import rendering

    runs = []
    real_run = rendering._run_pydoc
    monkeypatch.setattr(rendering, "_run_pydoc", lambda name: runs.append(name) or real_run(name))
    monkeypatch.setattr(rendering, "_render_slots", threading.BoundedSemaphore(1))
    pages = []
    visitors = [threading.Thread(target=lambda: pages.append(rendering.get_page("colorsys"))) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert runs == ["colorsys"]
    assert len({page.html for page in pages}) == 1
    assert sorted(page.is_hit for page in pages) == [False, True, True, True]


def test_no_free_slot_is_a_busy_page(site, browser, monkeypatch):
    from reader import rendering

    site.READER = {**site.READER, "render_timeout_s": 0.05}
    monkeypatch.setattr(rendering, "_render_slots", threading.BoundedSemaphore(1))
    with rendering._render_slots:
        response = browser.get("/module/colorsys/")
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
