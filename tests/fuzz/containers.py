"""Changes inside of files that wrap others or guard themselves: lengths and checksums are put right afterwards."""

from __future__ import annotations

import ast
import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from random import Random
from typing import Any

from fuzz.trees import STRINGS, as_json, changed

PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_KINDS = (
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"tRNS",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"iCCP",
    b"eXIf",
    b"zTXt",
    b"iTXt",
    b"gAMA",
    b"IEND",
)
SIZES = (0, 1, 2, 255, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def png(content: bytes, rng: Random) -> bytes:
    """One chunk changed, its checksum right."""
    chunks, at = [], len(PNG_MARK)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = rng.choice(chunks)
    kind = rng.randrange(6)
    if kind == 0 and chosen[0] == b"IHDR":
        fields = list(struct.unpack(">IIBBBBB", chosen[1]))
        place = rng.randrange(7)
        fields[place] = rng.choice(SIZES) if place < 2 else rng.randrange(20)
        chosen[1] = struct.pack(">IIBBBBB", *fields)
    elif kind == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), [rng.choice(PNG_KINDS), rng.choice(chunks)[1]])
    elif kind == 2:
        chunks.remove(chosen)
    elif kind == 3 and chosen[0] == b"IDAT":
        chosen[1] = zlib.compress(_blind(zlib.decompress(chosen[1]), rng) * rng.choice((1, 1, 50)))
    elif kind == 4:
        chosen[0] = rng.choice(PNG_KINDS)
    else:
        chosen[1] = _blind(chosen[1], rng)
    return PNG_MARK + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg(content: bytes, rng: Random) -> bytes:
    """One segment before the pixels changed, its length right."""
    parts, at = [], 2
    while content[at] == 0xFF and content[at + 1] not in (0xDA, 0xD9):
        (length,) = struct.unpack_from(">H", content, at + 2)
        parts.append([content[at + 1], content[at + 4 : at + 2 + length]])
        at += 2 + length
    chosen = rng.choice(parts)
    kind = rng.randrange(5)
    if kind == 0:
        parts.append([rng.choice((0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)), chosen[1]])
    elif kind == 1:
        parts.remove(chosen)
    elif kind == 2 and 0xC0 <= chosen[0] <= 0xC2:
        chosen[1] = chosen[1][:1] + struct.pack(">HH", *(rng.choice(SIZES) % 65536 for _ in range(2))) + chosen[1][5:]
    else:
        chosen[1] = _blind(chosen[1], rng)[:65000]
    head = b"".join(bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in parts)
    return content[:2] + head + content[at:]


def tiff(content: bytes, rng: Random) -> bytes:
    """One entry of the first directory changed: tag, kind, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    at = start + 2 + 12 * rng.randrange(count)
    fields = list(struct.unpack_from(order + "HHII", content, at))
    place = rng.randrange(4)
    if place == 0:
        fields[0] = rng.choice(
            (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339)
        )
    else:
        fields[place] = rng.choice((*range(20), *SIZES)) % (2**16 if place == 1 else 2**32)
    return content[:at] + struct.pack(order + "HHII", *fields) + content[at + 12 :]


def zipped(content: bytes, rng: Random) -> bytes:
    """One member changed, or a field of the directory."""
    if rng.random() < 0.4:
        return _zip_field(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [[info, archive.read(info)] for info in archive.infolist()]
    chosen = rng.choice(members)
    kind = rng.randrange(4)
    if kind == 0:
        chosen[0].filename = rng.choice(STRINGS)[:200] + rng.choice(("", chosen[0].filename))
    elif kind == 1:
        members.append([chosen[0], _by_name(chosen[0].filename, chosen[1], rng)])
    elif kind == 2:
        chosen[0].external_attr = rng.choice((0o120777, 0o010644, 0o040755, 0o100644)) << 16
    else:
        chosen[1] = _by_name(chosen[0].filename, chosen[1], rng)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED) as archive:
        for info, data in members:
            fresh = zipfile.ZipInfo(info.filename.encode("utf-8", "replace").decode() or "x")
            fresh.external_attr = info.external_attr
            fresh.compress_type = rng.choice((info.compress_type, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            archive.writestr(fresh, data)
    return file.getvalue()


def _zip_field(content: bytes, rng: Random) -> bytes:
    mark = rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
    places = [at for at in range(len(content) - 4) if content[at : at + 4] == mark]
    width = {b"PK\x01\x02": 46, b"PK\x03\x04": 30, b"PK\x05\x06": 22}[mark]
    at = rng.choice(places) + 4 + 2 * rng.randrange((width - 4) // 2)
    form = rng.choice(("<H", "<I"))
    value = rng.choice((*SIZES, 8, 9, 12, 14, len(content))) % 256 ** struct.calcsize(form)
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


def gzipped(content: bytes, rng: Random) -> bytes:
    """What is packed, changed as JSON lines."""
    from fuzz.texts import json_line

    return gzip.compress(json_line(gzip.decompress(content), rng), 1, mtime=0)


def tarred(content: bytes, rng: Random) -> bytes:
    """A field of a header changed, its checksum right; or a member's content; or a header put in."""
    headers = [at for at in range(0, len(content) - 511, 512) if content[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    header = bytearray(content[at : at + 512])
    size = int(bytes(header[124:135]).split(b"\0")[0] or b"0", 8)
    kind = rng.randrange(5)
    if kind == 0:  # its content
        name = bytes(header[:100]).split(b"\0")[0].decode("utf-8", "replace")
        data = _by_name(name, content[at + 512 : at + 512 + size], rng)[:100_000]
        header[124:136] = b"%011o\0" % len(data)
        rest = content[at + 512 + -(-size // 512) * 512 :]
        return content[:at] + _summed(header) + data + b"\0" * (-len(data) % 512) + rest
    if kind == 1:  # a name
        header[0:100] = rng.choice(STRINGS).encode("utf-8", "replace")[:100].ljust(100, b"\0")
    elif kind == 2:  # a size
        header[124:136] = rng.choice(
            (
                b"77777777777\0",
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"\x80" + b"\0" * 7 + struct.pack(">I", 10**9),
                b"-1".ljust(12),
                b" " * 12,
            )
        )
    elif kind == 3:
        header[156] = rng.choice(b"0123457xgLKSVMN\0")
    else:
        record = b"path=" + rng.choice(STRINGS).encode("utf-8", "replace")[:300] + b"\n"
        data = rng.choice((b"%d " % (len(record) + 3), b"99999999 ", b"-5 ", b"")) + record
        extra = bytearray(header)
        extra[156], extra[124:136] = rng.choice(b"xgLK"), b"%011o\0" % len(data)
        return content[:at] + _summed(extra) + data + b"\0" * (-len(data) % 512) + content[at:]
    return content[:at] + _summed(header) + content[at + 512 :]


def _summed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def safetensors(content: bytes, rng: Random) -> bytes:
    """A value of the header changed, its length right; or the length extreme."""
    (length,) = struct.unpack_from("<Q", content)
    header, rest = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.1:
        return struct.pack("<Q", rng.choice((*SIZES, 2**63, 2**64 - 1, len(content)))) + content[8:]
    header = as_json(changed(json.loads(header), rng), rng)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + rest


def parquet(content: bytes, rng: Random) -> bytes:
    """A value of a row changed, or a byte of the footer."""
    import pyarrow.parquet as pq

    if rng.random() < 0.5:
        (length,) = struct.unpack("<I", content[-8:-4])
        footer = _blind(content[-8 - length : -8], rng)
        return content[: -8 - length] + footer + struct.pack("<I", len(footer)) + content[-4:]
    about = pq.read_metadata(io.BytesIO(content))
    if (
        about.num_rows > 1000
        or sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups)) > 1 << 20
    ):
        raise ValueError("an earlier change made it too large to be unfolded here")
    table = pq.read_table(io.BytesIO(content))
    table.validate(full=True)
    table = _changed_table(table, rng)
    file = io.BytesIO()
    pq.write_table(
        table, file, compression=rng.choice(("snappy", "none", "zstd", "gzip")), row_group_size=rng.choice((1, 2, 1000))
    )
    return file.getvalue()


def arrow(content: bytes, rng: Random) -> bytes:
    """A value of a row changed, in either of Arrow's two forms."""
    import pyarrow as pa

    is_file = content.startswith(b"ARROW1")
    reader = pa.ipc.open_file(io.BytesIO(content)) if is_file else pa.ipc.open_stream(io.BytesIO(content))
    table = reader.read_all()
    table.validate(full=True)
    table = _changed_table(table, rng)
    file = io.BytesIO()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def _changed_table(table: Any, rng: Random) -> Any:
    import pyarrow as pa

    rows = changed(table.to_pylist(), rng)
    try:
        return pa.Table.from_pylist(rows, table.schema if rng.random() < 0.5 else None)
    except Exception:
        return table.slice(0, rng.randrange(3)) if rng.random() < 0.5 else table.select(table.column_names[1:])


def npy(content: bytes, rng: Random) -> bytes:
    """A value of the header changed, its length right."""
    length = struct.unpack_from("<H", content, 8)[0]
    header = ast.literal_eval(content[10 : 10 + length].decode())
    kind = rng.randrange(3)
    if kind == 0:
        header["descr"] = rng.choice(
            ("<f2", "<f4", "<f8", ">f4", "|O", "<U8", "|V16", "<i8", "<f100", [("a", "<f4")], "", "bfloat16")
        )
    elif kind == 1:
        header["shape"] = rng.choice(
            ((), (0,), (3,), (10**9, 10**9), (-1, 3), (2, 0), (2**40, 3), (2, 3, 4), ("a",), 3)
        )
    else:
        header["fortran_order"] = rng.choice((True, None, 1, "a"))
    text = (repr(header) + "\n").encode()
    return content[:8] + struct.pack("<H", len(text)) + text + content[10 + length :]


def _by_name(name: str, data: bytes, rng: Random) -> bytes:
    """A member's content, changed as its name says."""
    from fuzz.mutate import KINDS, mutated

    return mutated(data, KINDS.get(PurePosixPath(name).suffix.lower(), ""), rng, (data,))


def _blind(data: bytes, rng: Random) -> bytes:
    from fuzz.mutate import change_bytes

    return change_bytes(data, rng, (data,))
