"""Django's sessions in the cache, except that a cache out of reach is an error and not the end of a session.

Django takes every error of the cache for a session that is over, and has the browser forget its cookie: then a minute without a
majority of nodes would cost visitors their bookmarks.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.cache import SessionStore as CacheSessionStore


class SessionStore(CacheSessionStore):
    """A session of this site."""

    def load(self) -> dict[str, Any]:
        """Return what the session holds. Raises what the cache raises."""
        return self._known(self._cache.get(self.cache_key))

    async def aload(self) -> dict[str, Any]:
        """As :meth:`load`."""
        return self._known(await self._cache.aget(await self.acache_key()))

    def _known(self, data: dict[str, Any] | None) -> dict[str, Any]:
        if data is None:
            self._session_key = None
            return {}
        return data
