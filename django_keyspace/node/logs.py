"""How a node's log looks: lines for people, or one JSON object per line for programs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from time import monotonic
from typing import Final

SELDOM_S: Final = 60.0
_REMEMBERED_MAX: Final = 1_000


class JsonFormatter(logging.Formatter):
    """One object per record: time (UTC, ISO 8601), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class SeldomLog:
    """Says the same thing once a minute at most, however often it happens.

    Arguments:
        logger: where to.
        interval_s: how long something is not said again.
    """

    def __init__(self, logger: logging.Logger, interval_s: float = SELDOM_S) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}

    def say(self, level: int, about: tuple[object, ...], sentence: str) -> None:
        """Say it, unless the same was said a short time ago.

        Arguments:
            level: of ``logging``.
            about: what makes two sentences the same.
            sentence: what to say.
        """
        now_s = monotonic()
        said_s, hidden = self._said.get(about, (float("-inf"), 0))
        if now_s - said_s < self._interval_s:
            self._said[about] = said_s, hidden + 1
            return
        if len(self._said) >= _REMEMBERED_MAX:
            self._said.clear()
        self._said[about] = now_s, 0
        self._logger.log(level, "%s%s", sentence, f" ({hidden} more times meanwhile)" if hidden else "")

    def forget(self, *beginning: object) -> None:
        """What begins so is over: should it happen again, it is news."""
        for about in [about for about in self._said if about[: len(beginning)] == beginning]:
            del self._said[about]


def set_up_logging(log_format: str) -> None:
    """Let this process log to its standard error.

    Arguments:
        log_format: ``text`` or ``json``.
    """
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
