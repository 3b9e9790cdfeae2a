"""Seeded damage: of bytes, of text tables, and of trees of JSON and YAML."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

NASTY = (
    *("", " ", "0", "-0", "1", "-1", "2", "5", "9", "999", "0.5", "1.0", "1e0", "+1", "--1", "1-", "007"),
    *("nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e300", "-1e300", "1e39", "1e-400", "1e5000"),
    *("1000000000", "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("\uff11", "\u0663", "\u00b2", "\u00bd", "\u2163", "\u4e00", "\u22121", "1\u00a0", "\u200b1", "1 000"),
    *(
        "1_0",
        "0x1",
        "1,0",
        "1" * 400,
        "None",
        "null",
        "true",
        "False",
        "NA",
        "~",
        "*",
        "?",
        "#",
        "#1",
        "=1+1",
    ),
    *("[]", "{}", "&a", "*a", "!!int 1", "%", "'", '"', '""', "\\", "/", "//", ".", "..", "../../x"),
    *("/etc/hostname", "C:\\x", "a/b/c", "-", "_", "x" * 300, "y" * 100_000, "\U0001f600", "e\u0301"),
    *("\0", "\n", "\r", "\t", "\v", "\f", "\x1b[31m", "\x85", "\u2028", "\u202e", "\ufeff", "\ufffd"),
)
"""Values that a cell may have in place of its own: numbers out of range and in other alphabets, words for
nothing, what some parser takes for syntax, paths, control characters, very long ones."""

PLACES = (1, 0, -1, 3, 10**6, 10**9, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400)
NUMBERS = (*PLACES, 0.5, -0.0, 1e300, 1e39, 1e-320, float("nan"), float("inf"), -float("inf"))
Way = Callable[[bytes, Random], bytes]


def some_place(length: int, random: Random) -> int:
    """A place in a file, half of the time among the first 200, where headers are."""
    return random.randrange(min(length, 200) if random.random() < 0.5 else length)


def flip_bits(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        changed[some_place(len(data), random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, random: Random) -> bytes:
    """To extremes, one to eight in a row: lengths and counts become huge, zero or negative."""
    at, count = some_place(len(data), random), random.choice((1, 2, 4, 8))
    value = random.choice((b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01"))
    return data[:at] + (value * count)[: len(data) - at] + data[at + count :]


def cut(data: bytes, random: Random) -> bytes:
    """The end is missing."""
    return data[: random.randrange(len(data))]


def cut_out(data: bytes, random: Random) -> bytes:
    at = some_place(len(data), random)
    return data[:at] + data[at + random.choice((1, 2, 7, 64, len(data) // 4)) :]


def insert(data: bytes, random: Random) -> bytes:
    at = some_place(len(data), random)
    return data[:at] + random.randbytes(random.choice((1, 2, 7, 64, 4096))) + data[at:]


def zero(data: bytes, random: Random) -> bytes:
    """A run of zeros, as a bad sector or a sparse copy leaves it."""
    at, count = some_place(len(data), random), random.choice((4, 64, 512, len(data) // 4))
    return data[:at] + bytes(min(count, len(data) - at)) + data[at + count :]


def duplicate(data: bytes, random: Random) -> bytes:
    at, count = some_place(len(data), random), random.choice((1, 16, 188, 512, len(data) // 2))
    return data[:at] + data[at : at + count] + data[at:]


def swap_runs(data: bytes, random: Random) -> bytes:
    """Two runs of a file change places, as in a bad download."""
    count = random.choice((1, 16, 188, 512))
    a, b = sorted(random.randrange(len(data)) for _ in range(2))
    if b - a < count:
        return flip_bits(data, random)
    return data[:a] + data[b : b + count] + data[a + count : b] + data[a : a + count] + data[b + count :]


BYTES: tuple[Way, ...] = (flip_bits, flip_bits, set_bytes, cut, cut_out, insert, zero, duplicate, swap_runs)


def damage_bytes(data: bytes, random: Random, others: tuple[bytes, ...] = ()) -> tuple[bytes, str]:
    """Damage of a binary file, and its way; `others` are files of its kind that it may be spliced with."""
    if others and random.random() < 0.05:
        other = random.choice(others)
        return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :], "splice"
    way = random.choice(BYTES)
    damaged = way(data, random)
    for _ in range(random.choice((0, 0, 0, 1, 3)) if way is not cut else 0):
        damaged = random.choice(BYTES)(damaged, random) if damaged else damaged
    return damaged, way.__name__


def damage_table(data: bytes, random: Random, separator: str = ",") -> bytes:
    """Damage of a text file whose lines are cells, as people and programs do it."""
    lines = data.decode().splitlines()
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change_lines(lines, random, separator) if random.random() < 0.3 else _change_cells(
            lines, random, separator
        )
    text = random.choice(("\n",) * 9 + ("\r\n", "\r", "\n\n")).join(lines) + "\n"
    return _encode(text, random)


def _change_lines(lines: list[str], random: Random, separator: str) -> None:
    if not lines:
        return
    at = random.randrange(len(lines))
    match random.randrange(9):
        case 0:
            lines.insert(at, lines[at])
        case 1:
            del lines[at]
        case 2:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines.insert(at, random.choice(("", " ", separator * lines[0].count(separator), "#", '"', "\0")))
        case 4:
            lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
        case 5:
            lines[at : at + 2] = ["".join(lines[at : at + 2])]
        case 6:
            del lines[random.choice((0, 1, at)) :]
        case 7:
            lines[:] = [line.replace(separator, random.choice((";", "\t", " ", ",,", "|"))) for line in lines]
        case 8:
            lines[at] += random.choice((separator, separator + "1", " ", "  # remark", "\t"))


def _change_cells(lines: list[str], random: Random, separator: str) -> None:
    if not lines:
        return
    at = random.choice((0, random.randrange(len(lines))))
    cells = lines[at].split(separator)
    place = random.randrange(len(cells))
    match random.randrange(8):
        case 0 | 1 | 2:
            cells[place] = random.choice(NASTY)
        case 3:
            other = random.randrange(len(cells))
            cells[place], cells[other] = cells[other], cells[place]
        case 4:
            del cells[place]
        case 5:
            cells.insert(place, random.choice((cells[place], random.choice(NASTY))))
        case 6:
            cells[place] = random.choice(('"{}"', '"{}', " {} ", "{}.0", "{}0", "-{}", "'{}'")).format(
                cells[place]
            )
        case 7:  # a column, in all lines
            value = random.choice((None, random.choice(NASTY)))
            for i, line in enumerate(lines):
                row = line.split(separator)
                if place < len(row):
                    row[place : place + 1] = [] if value is None else [value]
                lines[i] = separator.join(row)
            return
    lines[at] = separator.join(cells)


def _encode(text: str, random: Random) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    match random.randrange(40):
        case 0:
            return b"\xef\xbb\xbf" + data
        case 1:
            return text.encode("utf-16")
        case 2:
            return text.replace("1", "\xe9").encode("latin-1", "replace")
        case 3 | 4 | 5 | 6:
            return damage_bytes(data, random)[0]
        case 7:
            return b""
        case 8:
            return data.rstrip(b"\n")
    return data


def damage_tree(tree: Any, random: Random) -> Any:
    """A copy of a tree of dicts, lists and values with some nodes changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        tree = _change_node(tree, random)
    return tree


def _change_node(tree: Any, random: Random) -> Any:
    places = [(None, None), *_places(tree)] if random.random() < 0.05 else list(_places(tree))
    if not places:
        return _nasty_node(tree, random)
    parent, key = random.choice(places)
    if parent is None:
        return _nasty_node(tree, random)
    match random.randrange(8):
        case 0 | 1 | 2 | 3:
            parent[key] = _nasty_node(parent[key], random)
        case 4:
            del parent[key]
        case 5:
            other, place = random.choice(places)
            if other is not None and not _holds(parent[key], other) and not _holds(other[place], parent):
                parent[key], other[place] = other[place], parent[key]
        case 6:
            if isinstance(parent, dict):
                parent[random.choice((f"{key}x", key.upper(), random.choice(NASTY), "0"))] = parent.pop(key)
            else:
                parent.insert(key, parent[key])
        case 7:
            if isinstance(parent, dict):
                parent[random.choice(NASTY)] = parent[key]
            else:
                parent[:] = parent * random.choice((0, 2, 100))
    return tree


def _nasty_node(value: Any, random: Random) -> Any:
    match random.randrange(8):
        case 0 | 1:
            return random.choice(NUMBERS)
        case 2 | 3:
            return random.choice(NASTY)
        case 4:
            return random.choice((None, True, False, [], {}, [[]], {"": None}, [None] * 50))
        case 5:
            return random.choice(([value], {"x": value}, str(value), [value, value]))
        case 6 if isinstance(value, int | float) and not isinstance(value, bool):
            others = () if abs(value) > 1e300 else (value * 1000, float(value), value + 0.5)
            return random.choice((-value, value + 1, str(value), *others))
        case 7:
            return nested(random.choice((20, 150)), value)
    return random.choice(NUMBERS)


def nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every node but the root, as what holds it and its key; without recursion, since trees may be deep."""
    places, todo = [], [tree]
    while todo:
        node = todo.pop()
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            todo.append(node[key])
    return places


def _holds(tree: Any, node: Any) -> bool:
    return tree is node or any(parent[key] is node for parent, key in _places(tree))


def to_json(tree: Any, random: Random) -> bytes:
    """As text, which may be damaged further."""
    text = json.dumps(tree).encode("utf-8", "surrogatepass")
    if random.random() < 0.2:
        return damage_bytes(text, random)[0]
    if random.random() < 0.05:
        return random.choice(
            (b"[" * 100_000, b'{"a":' * 100_000, b"", b"null", b"\xef\xbb\xbf" + text, text * 2)
        )
    return text
