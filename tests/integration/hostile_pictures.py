"""Pictures of strangers who mean harm: each promises, or unfolds to, far more than its bytes; made by small functions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

Maker = Callable[[], bytes]
MAKERS: dict[str, Maker] = {}
EDGE = 13_300  # 177 million pixels, just under captrain's limit, and under the one that some of Pillow's readers have
MEBI = 1 << 20


def attack(name: str, *arguments: Any, **options: Any) -> Callable[[Callable[..., bytes]], Callable[..., bytes]]:
    """Register a picture under its name: what the function makes of these arguments."""

    def register(make: Callable[..., bytes]) -> Callable[..., bytes]:
        MAKERS[name] = lambda: make(*arguments, **options)
        return make

    return register


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# PNG: deflate packs 1032 bytes into one, and so do its texts and profiles.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def zeros(count: int) -> bytes:
    """So many zero bytes, packed by deflate: a block of them packs to the same bytes each time."""
    packer = zlib.compressobj(9)
    start, size = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH), 16 * MEBI
    packed = packer.compress(bytes(min(size, count))) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, wbits=-15)
    last = rest.compress(bytes(count % size if count > size else 0)) + rest.flush()
    return start + packed * max(1, count // size) + last + struct.pack(">HH", count % 65_521, 1)


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's kinds of colour


@attack("png header", packed=b"x\x9c")
@attack("png palette", kind=3)
@attack("png palette clear", kind=3, extra=chunk(b"tRNS", b"\0"))
@attack("png grey", kind=0)
@attack("png one bit", kind=0, bits=1)
@attack("png grey 16", kind=0, bits=16)
@attack("png grey clear", kind=0, extra=chunk(b"tRNS", b"\0\1"))
@attack("png grey alpha", kind=4)
@attack("png rgb")
@attack("png rgb clear", extra=chunk(b"tRNS", b"\0\1\0\1\0\1"))
@attack("png rgba", kind=6)
@attack("png rgba 16", kind=6, bits=16)
@attack("png rgba interlaced", kind=6, interlaced=1)
@attack("png turned", extra=chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"))
@attack("png just harmless", size=(7_000, 7_000))
@attack("png palette just harmless", size=(6_300, 6_300), kind=3)
@attack("png tall", size=(1, 190_000_000), kind=0, bits=1)
@attack("png wide", size=(190_000_000, 1), kind=0, bits=1)
@attack("png rather tall", size=(3, 1_000_000), kind=2)
@attack("png text bomb", size=(8, 8), extra=chunk(b"zTXt", b"Comment\0\0" + zeros(900 * MEBI)))
@attack("png many text bombs", size=(8, 8), extra=chunk(b"zTXt", b"Comment\0\0" + zeros(MEBI - 9)) * 900)
@attack("png international text bomb", size=(8, 8), extra=chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(900 * MEBI)))
@attack("png xmp bomb", size=(8, 8), extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(900 * MEBI)))
@attack("png profile bomb", size=(8, 8), extra=chunk(b"iCCP", b"icc\0\0" + zeros(900 * MEBI)))
@attack("png long exif", size=(8, 8), extra=chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 12 * 65_535))
@attack("png unpacks further", size=(8, 8), packed=zeros(900 * MEBI))
def png(
    size: tuple[int, int] = (EDGE, EDGE),
    kind: int = 2,
    bits: int = 8,
    *,
    interlaced: int = 0,
    extra: bytes = b"",
    packed: bytes | None = None,
) -> bytes:
    width, height = size
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(range(6))) if kind == 3 else b""
    raw = height * (1 + (width * bits * _CHANNELS[kind] + 7) // 8)
    body = zeros(raw + 16 * (width + height) * interlaced) if packed is None else packed
    return b"\x89PNG\r\n\x1a\n" + header + palette + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@attack("apng of thousands of frames")
def frames_of_png(count: int = 20_000) -> bytes:
    plain = png((8, 8))
    frame = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 100, 0, 0)
    body = b"".join(
        chunk(b"fcTL", struct.pack(">I", 2 * at + 1) + frame[4:])
        + chunk(b"fdAT", struct.pack(">I", 2 * at + 2) + zeros(200))
        for at in range(count)
    )
    start = plain.index(b"IDAT") - 4
    return plain[:start] + chunk(b"acTL", struct.pack(">II", count, 0)) + plain[start:-12] + body + plain[-12:]


# GIF: the screen, or one frame on it, is as large as it says.


def gif_frame(width: int, height: int, codes: bytes) -> bytes:
    blocks = b"".join(bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255))
    return b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + blocks + b"\0"


@attack("gif of 42 bytes", (EDGE, EDGE), (EDGE, EDGE), b"\x84\x51")
@attack("gif of a screen just harmless", (6_300, 6_300), (1, 1), b"\x44\x01")
@attack("gif of a large screen", (EDGE, EDGE), (1, 1), b"\x44\x01")
@attack("gif of a larger frame", (4, 4), (12_000, 12_000), b"\x44\x01")
@attack("gif of a huge frame", (4, 4), (65_535, 65_535), b"\x44\x01")
@attack("gif of a long comment", (1, 1), (1, 1), b"\x44\x01", extra=b"!\xfe" + (b"\xff" + b"c" * 255) * 80_000 + b"\0")
@attack("gif of comments", (1, 1), (1, 1), b"\x44\x01", extra=(b"!\xfe" + b"\x40" + b"c" * 64 + b"\0") * 200_000)
@attack("gif of extensions", (1, 1), (1, 1), b"\x44\x01", extra=b"!\x01\0" * 2_000_000)
@attack("gif of thousands of frames", (9_000, 9_000), (1, 1), b"\x44\x01", count=50_000)
def gif(screen: tuple[int, int], frame: tuple[int, int], codes: bytes, extra: bytes = b"", count: int = 1) -> bytes:
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    return start + extra + gif_frame(*frame, codes) * count + b";"


@attack("gif solid")
def solid_gif(width: int = EDGE, height: int = EDGE) -> bytes:
    """The shortest codes that LZW has for one colour: each is one pixel longer than that before, the longest repeats."""
    from itertools import chain, repeat

    pixels, value, length, parts = width * height, 0, 0, bytearray()

    def add(code: int, bits: int) -> None:
        nonlocal value, length
        value |= code << length
        length += bits
        while length >= 8:
            parts.append(value & 255)
            value >>= 8
            length -= 8

    add(4, 3)
    lengths = {0: 1}
    done, following, bits = 0, 6, 3
    for code in chain([0], range(6, 4096), repeat(4095)):
        run = lengths.setdefault(code, code - 4)
        if done + run > pixels:
            break
        add(code, bits)
        done += run
        if code and following < 4096:
            following += 1
            bits = min(12, max(bits, following.bit_length()))
    for _ in range(min(pixels - done, 4096)):
        add(0, bits)
        if following < 4096:
            following += 1
            bits = min(12, max(bits, following.bit_length()))
    add(5, bits)
    add(0, 8)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + gif_frame(width, height, bytes(parts))
        + b";"
    )


# JPEG: what is missing is filled with grey, and each of any number of scans goes over the whole picture.


def resized_jpeg(data: bytes, width: int, height: int) -> bytearray:
    changed = bytearray(data)
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
    changed[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return changed


@attack("jpeg of 631 bytes")
@attack("jpeg cmyk header", mode="CMYK")
@attack("jpeg progressive header", progressive=True)
@attack("jpeg header of the longest edges", width=65_500, height=3_000)
def jpeg_header(mode: str = "RGB", width: int = EDGE, height: int = EDGE, **options: Any) -> bytes:
    return bytes(
        resized_jpeg(saved(Image.new(mode, (16, 16), 128 if mode == "L" else None), "JPEG", **options), width, height)
    )


def solid_jpeg(width: int, height: int, **options: Any) -> bytes:
    """An honest grey JPEG of one tone: six bits a block of 8 x 8 pixels."""
    data = saved(Image.new("L", (16, 16), 128), "JPEG", **options)
    scan = data.rindex(b"\xff\xda") + 10
    blocks = -(-width // 8) * -(-height // 8)
    return bytes(resized_jpeg(data[:scan], width, height)) + b"\x28\xa2\x8a" * -(-blocks // 4) + b"\xff\xd9"


def colour_jpeg(width: int, height: int) -> bytes:
    """An honest JPEG of grey in colour, 4:4:4, tables of its own: three bits of two codes a block."""
    data = saved(Image.new("RGB", (16, 16), (128, 128, 128)), "JPEG", subsampling=0)
    scan = data.rindex(b"\xff\xda") + 14
    blocks = -(-width // 8) * -(-height // 8)
    # Two blocks of Y Cb Cr: 001010 0000 0000, 14 bits; four of these are seven bytes.
    bits = int("00101000000000" * 4, 2).to_bytes(7, "big")
    return bytes(resized_jpeg(data[:scan], width, height)) + bits * -(-blocks // 4) + b"\xff\xd9"


@attack("jpeg of thousands of scans")
def scans_of_jpeg(width: int = 4_000, height: int = 3_000, count: int = 3_000) -> bytes:
    data = saved(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    places = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    last = data[places[-1] : -2]
    return data[:-2] + last * count + data[-2:]


@attack(
    "jpeg of exif that leads in circles", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
)
@attack("jpeg of a long profile", icc_profile=bytes(16 * MEBI))
def dressed_jpeg(**options: Any) -> bytes:
    return saved(Image.new("RGB", (16, 16)), "JPEG", **options)


@attack("jpeg of many exif blocks")
@attack("jpeg of more exif blocks", count=400)
def blocks_of_jpeg(count: int = 300) -> bytes:
    data = saved(Image.new("RGB", (16, 16)), "JPEG")
    return data[:2] + (b"\xff\xe1\xff\xff" + b"Exif\0\0".ljust(65_533, b"x")) * count + data[2:]


@attack("mpo of many pictures")
def pictures_of_mpo(count: int = 200) -> bytes:
    small = Image.new("RGB", (16, 16))
    return saved(small, "MPO", save_all=True, append_images=[small] * count)


# WebP, AVIF, HEIC: one colour takes a hundred bytes, whatever the size.


@attack("webp lossless solid", EDGE)
@attack("webp lossless just harmless", 3_500)
def lossless_webp(edge: int) -> bytes:
    """One colour has no bits a pixel, so that its size is a matter of the header."""
    data = bytearray(saved(Image.new("RGB", (16, 16), (9, 9, 9)), "WEBP", lossless=True))
    size = int.from_bytes(data[21:25], "little") >> 28 << 28 | (edge - 1) << 14 | (edge - 1)
    data[21:25] = struct.pack("<I", size)
    return bytes(data)


@attack("webp behind another chunk")
def shifted_webp() -> bytes:
    body = b"WEBPJUNK" + struct.pack("<I", 4) + b"junk" + lossless_webp(16_000)[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@attack("webp lossy solid")
def lossy_webp(edge: int = 4_000) -> bytes:
    return saved(Image.new("RGB", (edge, edge), (9, 9, 9)), "WEBP", method=0, quality=1)


@attack("webp of a large canvas")
def canvas_of_webp(width: int = EDGE, height: int = EDGE) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = bytearray(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


@attack("webp of thousands of frames")
def frames_of_webp(count: int = 20_000) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    first = data.index(b"ANMF")
    frame = data[first : first + 8 + int.from_bytes(data[first + 4 : first + 8], "little")]
    body = data[8:first] + frame * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


@attack("webp that promises more bytes")
def short_webp() -> bytes:
    data = bytearray(lossless_webp(4_000))
    data[4:8] = struct.pack("<I", 1 << 30)
    return bytes(data)


@attack("avif solid", "AVIF", speed=10)
def iso(format: str, edge: int = 3_600, **options: Any) -> bytes:
    if format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    return saved(Image.new("RGB", (edge, edge), (90, 90, 90)), format, **options)


@attack("avif that says a larger size", "AVIF", speed=10)
@attack("heic that says a larger size", "HEIF")
def swollen_iso(format: str, **options: Any) -> bytes:
    """The size that the container states, changed; the coded picture keeps its own."""
    data = bytearray(iso(format, edge=64, **options))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", EDGE, EDGE)
    return bytes(data)


# TIFF and BMP.


def tiff(entries: dict[int, tuple[int, int, int]], rest: bytes = b"") -> bytes:
    """A little-endian TIFF: its tags (kind, count, value or place), then `rest`, which begins behind them."""
    body = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + rest


@attack("tiff header")
@attack("tiff deflate", compression=8, bits=(8,) * 1, packed=8)
@attack("tiff of 16 bits", compression=8, bits=(16,), packed=8)
@attack("tiff of floats", compression=8, bits=(32,), packed=8, sample_format=3)
@attack("tiff of 32 bits", compression=8, bits=(32,), packed=8, sample_format=1)
@attack("tiff one bit of group 4", compression=4, bits=(1,), body=b"\xff" * 1_800)
@attack("tiff lzw header", compression=5)
@attack("tiff packbits header", compression=32_773)
@attack("tiff zstd header", compression=50_000)
@attack("tiff of a huge strip", rows=1 << 31, compression=8)
def strip_of_tiff(
    compression: int = 1,
    bits: tuple[int, ...] = (8,),
    packed: int = 0,
    sample_format: int = 1,
    body: bytes = bytes(64),
    rows: int = EDGE,
) -> bytes:
    content = zeros(EDGE * EDGE * bits[0] // 8) if packed else body
    entries = {
        256: (4, 1, EDGE), 257: (4, 1, EDGE), 258: (3, 1, bits[0]), 259: (3, 1, compression), 262: (3, 1, 1),
        277: (3, 1, 1), 278: (4, 1, rows), 279: (4, 1, len(content)), 339: (3, 1, sample_format),
    }  # fmt: skip
    return tiff({**entries, 273: (4, 1, 8 + 2 + 12 * 10 + 4)}, content)


@attack("tiff of thousands of long tags")
def tags_of_tiff(count: int = 20_000) -> bytes:
    """Each tag names the same megabyte."""
    entries = {tag: (7, MEBI, 0) for tag in range(400, 400 + count)}
    small = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    strip = {273: (4, 1, 8), 278: (4, 1, 8), 279: (4, 1, 64)}
    return tiff({**entries, **small, **strip}, bytes(MEBI))


@attack("tiff of overlapping tiles")
def tiles_of_tiff(width: int = 1_000_000, height: int = 1, across: int = 16, down: int = 1_000_000) -> bytes:
    """Each of its 62,500 tiles has sixteen million pixels, all but sixteen below the picture, out of the same bytes."""
    tile = zeros(across * down)
    count = width // across
    lists = struct.pack(f"<{count}I", *[138] * count) + struct.pack(f"<{count}I", *[len(tile)] * count)
    entries = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1),
        322: (4, 1, across), 323: (4, 1, down), 324: (4, count, 138 + len(tile)), 325: (4, count, 138 + len(tile) + 4 * count),
    }  # fmt: skip
    return tiff(entries, bytes(138 - 134) + tile + lists)


@attack("tiff that leads in circles")
def circle_of_tiff() -> bytes:
    data = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    place = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[place : place + 2], "little")
    data[place + 2 + 12 * count : place + 6 + 12 * count] = struct.pack("<I", place)
    return bytes(data)


@attack("tiff of many samples")
def samples_of_tiff() -> bytes:
    entries = {
        256: (4, 1, EDGE), 257: (4, 1, EDGE), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 2),
        273: (4, 1, 8), 277: (3, 1, 65_535), 278: (4, 1, EDGE), 279: (4, 1, 64),
    }  # fmt: skip
    return tiff(entries, bytes(64))


@attack("bmp header", EDGE, 24, 0)
@attack("bmp of run lengths", EDGE, 8, 1)
@attack("bmp of run lengths, upside down", -EDGE, 8, 1)
@attack("bmp of 32 bits", EDGE, 32, 3)
def bmp(height: int, bits: int, compression: int) -> bytes:
    palette = bytes(1024) if bits == 8 else b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"
    info = struct.pack("<IiiHHIIiiII", 40, EDGE, height, 1, bits, compression, 0, 0, 0, 0, 0) + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + 4, 0, 0, 14 + len(info)) + info + b"\0\1\0\1"


# What Pillow would read, and captrain does not, whatever its name says.

for _format in ("ICO", "PPM", "TGA", "SGI", "PCX", "JPEG2000", "DDS", "ICNS", "IM", "QOI", "BLP"):
    MAKERS[f"a {_format} picture"] = lambda format=_format: saved(
        Image.new("P" if format == "BLP" else "RGB", (64, 64)), format
    )
MAKERS["a postscript picture"] = lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9000 9000\n(x) run\n%%EOF\n"
MAKERS["a postscript picture behind a preview"] = lambda: b"\xc5\xd0\xd3\xc6" + bytes(28) + b"%!PS-Adobe-3.0\n"
MAKERS["a photoshop picture"] = lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, EDGE, EDGE, 8, 3) + bytes(14)

# Honest pictures that are large enough to be counted, each of another way of being decoded.

HONEST: dict[str, Maker] = {
    "honest grey jpeg": lambda: solid_jpeg(6_000, 6_000),
    "honest colour jpeg": lambda: colour_jpeg(5_000, 5_000),
    "honest rgba png": lambda: png((4_900, 4_900), kind=6),
    "honest palette png": lambda: png((6_000, 6_000), kind=3),
    "honest png of 16 bits": lambda: png((4_000, 4_000), kind=0, bits=16),
    "honest progressive jpeg": lambda: saved(
        Image.new("RGB", (3_000, 2_500), "red"), "JPEG", progressive=True, subsampling=0
    ),
    "honest webp": lambda: lossless_webp(3_000),
    "honest avif": lambda: iso("AVIF", edge=2_000, speed=10),
    "honest cmyk tiff": lambda: saved(Image.new("CMYK", (4_000, 4_000)), "TIFF", compression="tiff_lzw"),
}
