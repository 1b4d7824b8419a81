"""The site's secret key, made once and kept in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def secret_key(path: Path) -> str:
    """Return the key that ``path`` holds; make one first if there is none.

    Several processes may come here at once: each writes a file of its own and links it to the final name, which only
    the first one can do, so all of them read the same whole key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret_key.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(50))
            os.link(draft, path)
        except FileExistsError:
            pass  # Another process was first; its key is the one that counts.
        finally:
            os.unlink(draft)
    return path.read_text(encoding="ascii").strip()
