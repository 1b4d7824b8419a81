"""Signals of models. They are not Django's own, whose receivers expect models with tables.

``pre_save(sender, instance, raw, using, update_fields)``, ``post_save(..., created)``, ``pre_delete(sender, instance, using)``
and ``post_delete``. The sender is the model's class. Async methods await async receivers.
"""

from __future__ import annotations

from typing import Final

from django.dispatch import Signal

pre_save: Final = Signal()
post_save: Final = Signal()
pre_delete: Final = Signal()
post_delete: Final = Signal()
