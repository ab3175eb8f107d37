"""Thrift's compact protocol, in which Parquet files describe themselves, as far as it is needed to read that.

Source: `thrift-compact-protocol.md` of Apache Thrift. Nothing is allocated by what the bytes say of a length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Wanted = Mapping[int, Any]
"""The fields of a struct that count: None for a value, a mapping for a struct, [None] or [mapping] for a list."""


class Compact:
    """Thrift's compact protocol, of which only wanted fields are kept. Raises `IndexError` where the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, wanted: Wanted, depth: int = 0) -> dict[int, Any]:
        """The wanted fields of a struct, by their numbers."""
        found: dict[int, Any] = {}
        number = 0
        if depth > 32:
            raise ValueError("it nests too deeply")
        while byte := self._byte():
            step = byte >> 4
            number = number + step if step else self._signed()
            kind = byte & 15
            if number in wanted:
                found[number] = self._value(kind, wanted[number], depth)
            else:
                self._value(kind, None, depth)
        return found

    def _value(self, kind: int, wanted: Any, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._skip(self._number())
        if kind in (9, 10):
            return self._list(wanted, depth)
        if kind == 12:
            return self.struct(wanted if isinstance(wanted, Mapping) else {}, depth + 1)
        if kind in (3, 7):
            return self._skip(1 if kind == 3 else 8)
        raise ValueError(f"a field of unknown kind {kind}")

    def _list(self, wanted: Any, depth: int) -> list[Any]:
        byte = self._byte()
        count, kind = byte >> 4, byte & 15
        count = self._number() if count == 15 else count
        if count > len(self.data) - self.at:  # each takes a byte
            raise IndexError
        inner = wanted[0] if isinstance(wanted, list) else None
        if kind in (1, 2):
            self._skip(count)
            return []
        found = []
        for _ in range(count):
            value = self._value(kind, inner, depth + 1)
            if isinstance(wanted, list):
                found.append(value)
        return found

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _skip(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._number()
        return value >> 1 ^ -(value & 1)
