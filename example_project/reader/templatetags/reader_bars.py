"""A bar for tables. SVG, since the content security policy allows no inline styles."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def bar(value: float, value_max: float) -> SafeString:
    """Return a bar as long as ``value`` is of ``value_max``. For the eye only: the number stands beside it."""
    percent = min(100.0, max(0.5, 100 * value / value_max)) if value_max > 0 else 0.0
    return format_html(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect width="{}" height="8"></rect></svg>',
        f"{percent:.1f}",
    )
