#!/usr/bin/env python3
"""trim.py PROGRAM   cuts off what no system loads from a static ELF program: all behind its last segment, and the section table.

`strip` leaves tables for debuggers; on MIPS they are a tenth of the file.
"""
import pathlib
import struct
import sys


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    data = bytearray(path.read_bytes())
    assert data[:4] == b"\x7fELF", f"{path} is no ELF file"
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"

    def field(form: str, at: int) -> int:
        return struct.unpack_from(order + form, data, at)[0]

    word = "Q" if wide else "I"
    # Offsets of the header's fields, and of a segment's offset and size, for 64 and 32 bits.
    table_at, sections_at, counts_at, place, size = (32, 40, 54, 8, 32) if wide else (28, 32, 42, 4, 16)
    table = field(word, table_at)
    entry_bytes, count = field("H", counts_at), field("H", counts_at + 2)
    end = table + entry_bytes * count
    for index in range(count):
        entry = table + index * entry_bytes
        end = max(end, field(word, entry + place) + field(word, entry + size))
    assert end <= len(data)
    struct.pack_into(order + word, data, sections_at, 0)
    # Size, number and names of sections.
    struct.pack_into(order + "HHH", data, counts_at + 4, 0, 0, 0)
    path.write_bytes(data[:end])


main()
