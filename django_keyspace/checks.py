"""System checks of the aliases that use this backend, and of models: ``keyspace.E...`` errors, ``keyspace.W...`` warnings.

They look at settings and at the folder from outside; nothing is opened and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_keyspace.addresses import parse_location
from django_keyspace.conf import Config, make_config
from django_keyspace.exceptions import ConfigurationError
from django_keyspace.security import is_loopback

NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)
_MODEL_PROBLEMS: Final = {"unordered": "keyspace.E103", "null-key": "keyspace.E104"}
"""The ids of what is found when a model's class is made."""
_SESSION_ENGINES: Final = frozenset({"django.contrib.sessions.backends.cache"})


def our_aliases() -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of ``CACHES`` whose backend is ours or derived from it."""
    from django_keyspace.backend import KeyspaceCache

    for alias, entry in settings.CACHES.items():
        try:
            backend = import_string(entry["BACKEND"])
        except (ImportError, KeyError):
            continue  # Django says so itself
        if isinstance(backend, type) and issubclass(backend, KeyspaceCache):
            yield alias, entry


@register(Tags.caches)
def check_aliases(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check every alias of ours."""
    messages: list[CheckMessage] = []
    configs: dict[str, Config] = {}
    for alias, entry in our_aliases():
        try:
            config = make_config(entry.get("LOCATION", ""), entry.get("OPTIONS") or {})
        except (ConfigurationError, ImproperlyConfigured, ImportError) as error:
            messages.append(Error(f"CACHES[{alias!r}]: {error}", id="keyspace.E001"))
            continue
        messages += _check_options(alias, entry, config)
        if config.replica is not None:
            messages += _check_replica(alias, config, config.replica)
        if not config.is_remote:
            messages += _check_folder(alias, config)
            configs[alias] = config
    return messages + list(_check_shared_folders(configs))


def _check_options(alias: str, entry: dict[str, Any], config: Config) -> Iterator[CheckMessage]:
    if config.serializer == "pickle" and not config.signed:
        yield Warning(
            f"CACHES[{alias!r}] reads unsigned pickles: whoever can write to the store can run code in this site.",
            hint="Remove OPTIONS['signed'], or use the serializer 'json' or 'msgpack'.",
            id="keyspace.W001",
        )
    if entry.get("KEY_FUNCTION") and config.reverse_key_function is None:
        yield Warning(
            f"CACHES[{alias!r}] has a KEY_FUNCTION but no reverse_key_function: its keys cannot be listed or pruned.",
            hint="Give OPTIONS['reverse_key_function'], which makes the user's key from a full key.",
            id="keyspace.W002",
        )
    if not config.evictable and not config.is_remote and config.store.durability != "commit":
        yield Warning(
            f"CACHES[{alias!r}] keeps records that must not be lost, with durability {config.store.durability!r}: after a "
            "power cut the store refuses to open.",
            hint="Set OPTIONS['durability'] = 'commit'.",
            id="keyspace.W003",
        )
    if config.is_remote and config.tls is None:
        far = [
            str(node) for node in parse_location(config.location).endpoints if node.host and not is_loopback(node.host)
        ]
        if far:
            yield Warning(
                f"CACHES[{alias!r}] talks to {', '.join(far)} without TLS: whoever is on the way can read and change everything.",
                hint="Start the node with --tls-cert and --tls-key, and write keyspaces:// in LOCATION.",
                id="keyspace.W006",
            )
    if config.on_error == "miss" and alias == getattr(settings, "SESSION_CACHE_ALIAS", None):
        if settings.SESSION_ENGINE in _SESSION_ENGINES:
            yield Warning(
                f"CACHES[{alias!r}] holds the sessions and has on_error='miss': an outage logs everybody out silently.",
                hint="Use on_error='raise' for sessions, or the engine django.contrib.sessions.backends.cached_db.",
                id="keyspace.W004",
            )


def _check_replica(alias: str, config: Config, place: str) -> Iterator[CheckMessage]:
    if config.consistency in ("safe", "lease") and len(parse_location(config.location).endpoints) > 1:
        yield Info(
            f"CACHES[{alias!r}] has a replica and consistency {config.consistency!r}: of a cluster, only dirty_get and the other "
            "dirty reads are answered there.",
            hint="Set OPTIONS['consistency'] to 'session' or 'dirty' for other reads.",
            id="keyspace.I001",
        )
    if place != "auto" and not os.access(place, os.X_OK if os.path.isdir(place) else os.W_OK):
        yield Warning(
            f"CACHES[{alias!r}]: the replica {place} is not there, or this user may not use it: all reads go over the network.",
            hint="Name the data folder of a node on this host; run both as one user, or give the node --replica-group.",
            id="keyspace.W007",
        )


def _check_folder(alias: str, config: Config) -> Iterator[CheckMessage]:
    folder = Path(config.location)
    if folder.exists() and not folder.is_dir():
        yield Error(f"CACHES[{alias!r}]: LOCATION {folder} is a file.", hint="Name a folder.", id="keyspace.E002")
        return
    parent = existing_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        yield Error(
            f"CACHES[{alias!r}]: LOCATION {folder} cannot be written: {parent} belongs to somebody else.",
            hint="Choose another folder, or mend the owner and permissions.",
            id="keyspace.E003",
        )
    filesystem = filesystem_of(parent)
    if filesystem in NETWORK_FILESYSTEMS:
        yield Error(
            f"CACHES[{alias!r}]: LOCATION {folder} is on a network filesystem ({filesystem}), where LMDB's locks and memory "
            "map do not work.",
            hint="Use a local disk; several hosts share a node (LOCATION = 'keyspace://HOST:PORT/0').",
            id="keyspace.E004",
        )
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        root = getattr(settings, name, None)
        if root and _is_inside(folder, Path(root)):
            yield Warning(
                f"CACHES[{alias!r}]: LOCATION {folder} is inside {name}: its files would be served, and reading them drops "
                "LMDB's locks.",
                hint=f"Move it out of {name}.",
                id="keyspace.W005",
            )


def _check_shared_folders(configs: dict[str, Config]) -> Iterator[CheckMessage]:
    first: dict[str, tuple[str, Config]] = {}
    for alias, config in configs.items():
        path = os.path.realpath(config.location)
        other, other_config = first.setdefault(path, (alias, config))
        if other_config.store != config.store:
            yield Error(
                f"CACHES[{alias!r}] and CACHES[{other!r}] use the folder {path} with different options of the store.",
                hint="Give both the same durability, max_bytes, map_bytes, databases and value_bytes_max.",
                id="keyspace.E005",
            )


@register(Tags.models)
def check_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check every key-value model, or those of some apps."""
    from django_keyspace.backend.models.registry import get_models

    labels = None if app_configs is None else {config.label for config in app_configs}
    ours = dict(our_aliases())
    messages: list[CheckMessage] = []
    places: dict[tuple[Any, ...], Any] = {}
    used: dict[str, Any] = {}
    for model in get_models():
        meta = model._meta
        is_asked_for = labels is None or meta.app_label in labels
        if is_asked_for:
            messages += [
                Error(message, hint=hint, obj=model, id=_MODEL_PROBLEMS[kind]) for kind, message, hint in meta.problems
            ]
        if meta.using not in ours:
            if is_asked_for:
                messages.append(_alias_error(model))
            continue
        config = _config_of(ours[meta.using])
        if config is None:
            continue  # check_aliases says why
        path = config.location if config.is_remote else os.path.realpath(config.location)
        other = places.setdefault((path, config.database, meta.prefix), model)
        if is_asked_for and other is not model:
            messages.append(
                Error(
                    f"{meta.label} ({meta.using!r}) and {other._meta.label} ({other._meta.using!r}) keep their objects under the "
                    f"prefix {meta.prefix!r} in one database, where they would overwrite each other.",
                    hint="Give one another Meta.prefix, or the aliases different databases.",
                    obj=model,
                    id="keyspace.E101",
                )
            )
        if is_asked_for and not config.is_remote and config.store.durability != "commit":
            used.setdefault(meta.using, (model, config.store.durability))
    return messages + [_durability_warning(alias, *found) for alias, found in used.items()]


def _config_of(entry: dict[str, Any]) -> Config | None:
    try:
        return make_config(entry.get("LOCATION", ""), entry.get("OPTIONS") or {})
    except (ConfigurationError, ImproperlyConfigured, ImportError):
        return None


def _alias_error(model: Any) -> CheckMessage:
    alias = model._meta.using
    backend = settings.CACHES.get(alias, {}).get("BACKEND")
    state = "is not in CACHES" if alias not in settings.CACHES else f"has the backend {backend}"
    return Error(
        f"{model._meta.label} keeps its objects in the alias {alias!r}, which {state}.",
        hint="Set Meta.using to an alias whose BACKEND is django_keyspace.backend.KeyspaceCache.",
        obj=model,
        id="keyspace.E102",
    )


def _durability_warning(alias: str, model: Any, durability: str) -> CheckMessage:
    return Warning(
        f"CACHES[{alias!r}] holds objects of {model._meta.label}, with durability {durability!r}: after a power cut the store "
        "refuses to open.",
        hint="Set OPTIONS['durability'] = 'commit', or silence the check if the objects can be made again.",
        id="keyspace.W101",
    )


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """The type of the filesystem that a path is on; empty where the system does not tell.

    Arguments:
        path: an existing path.
        mounts: the text of a mount table as Linux has it; read from the system if None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text()
        except OSError:
            return ""
    real, best, filesystem = str(path.resolve()), "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, filesystem = point, fields[2]
    return filesystem


def _is_inside(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root.resolve())
