"""How much a message says that it holds, counted before anything is unpacked.

A msgpack text names the length of every list, dictionary, string and array in front of it, and the unpacker makes room for
that many at once. Five bytes can name four thousand million. So each length is first compared with the bytes that are
left: an entry takes at least one.
"""

from __future__ import annotations

FIXED = {  # bytes after the first one, of what has no length: nil, booleans, numbers, short extensions
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
BYTES = {  # (bytes of the length, bytes between it and the content): byte strings, extensions, strings
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
ENTRIES = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}      # (bytes of the length, objects an entry): lists, dicts


def count_objects(
    packed: bytes | memoryview, most: int | None = None, note: tuple[int, list[tuple[int, int, int]]] | None = None
) -> int:
    """The objects in a msgpack text, the outermost included. ValueError unless it is whole, with nothing behind it, and of
    at most so many. note: (bytes, places): of each extension of so many bytes or more, where it begins, where its content
    does, and where it ends."""
    at, due, count, end = 0, 1, 0, len(packed)              # due: objects that are announced and not read yet
    while due:
        if due > end - at:
            raise ValueError(f"{due} more objects are announced in {end - at} bytes")
        if most is not None and count + due > most:
            raise ValueError(f"it is made of {count + due} objects or more, where at most {most} are expected")
        first = packed[at]
        at, due, count = at + 1, due - 1, count + 1
        if first < 0x80 or first >= 0xE0:                   # a small number is its own byte
            continue
        if first < 0x90:
            due += 2 * (first & 15)
        elif first < 0xA0:
            due += first & 15
        elif first < 0xC0:
            at += first & 31
        elif first in FIXED:
            at += FIXED[first]
        elif first in BYTES or first in ENTRIES:
            wide, more = BYTES.get(first) or ENTRIES[first]
            length = int.from_bytes(packed[at : at + wide], "big")
            at += wide
            if first in BYTES:
                if note and length >= note[0] and more and at + more + length <= end:
                    note[1].append((at - wide - 1, at + more, at + more + length))
                at += more + length
            else:
                due += more * length
        else:
            raise ValueError(f"byte {first:#x} begins no object")
    if at != end:
        raise ValueError(f"its objects take {at} bytes, not {end}")
    return count
