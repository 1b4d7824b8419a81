"""The bytes of the journal: what of a file is used."""

from __future__ import annotations

import pytest

from django_keyspace.node.journal.records import first_used, used_bytes


@pytest.mark.parametrize("size", [0, 1, 31, 64 * 1024, 64 * 1024 + 1, 200_000])
def test_where_a_file_of_zeros_is_used(size: int) -> None:
    assert first_used(bytes(size), 0) == size and used_bytes(bytes(size)) == 0
    for at in {0, 1, size // 2, size - 1} & set(range(size)):
        data = bytearray(size)
        data[at] = 1
        assert (first_used(bytes(data), 0), used_bytes(bytes(data))) == (at, at + 1)
        assert first_used(bytes(data), at + 1) == size
