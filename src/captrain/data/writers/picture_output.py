"""A picture on its way out: as it is, linked, or encoded again."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from captrain.data.picture_files import LONGEST_MARK, suffix_of_content
from captrain.data.safe_paths import IMAGE_SUFFIXES
from captrain.disk.folders import make_folders
from captrain.disk.reading import POINTER, is_pointer, open_file, read_file
from captrain.disk.writing import create, write_new
from captrain.errors import PictureError
from captrain.memory_budget import counted, take
from captrain.records import LARGEST_PICTURE, Sample

logger = logging.getLogger(__name__)

JPEG = ".jpg"
BYTES_TO_ENCODE = 8  # a pixel: the picture, libjpeg's coefficients for tables of its own, and a buffer

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class OutputPicture:
    """An encoded picture: a file, or its bytes. `suffix` is that of its form; `encoded` says that captrain encoded it."""

    content: Path | bytes
    suffix: str
    encoded: bool = False

    @classmethod
    def of(cls, sample: Sample) -> OutputPicture:
        """A sample's picture as it is. A file is opened but not read, so that what can't be opened is known before writing.

        Raises `OSError` if it can't be read, `PictureError` if it is not a picture.
        """
        content = sample.image if isinstance(sample.image, Path) else sample.read()
        if isinstance(content, Path) and content.stat().st_size > LARGEST_PICTURE:
            raise PictureError(f"has over {LARGEST_PICTURE} bytes, which no picture has")
        beginning = _beginning(content)
        if not beginning:
            raise PictureError("is empty (0 bytes)")
        if is_pointer(beginning):
            raise PictureError(POINTER)
        named = os.path.splitext(content.name if isinstance(content, Path) else sample.id)[1]
        return cls(content, named if named.lower() in IMAGE_SUFFIXES else suffix_of(beginning))

    def read(self) -> bytes:
        """All bytes. Raises `PictureError` if they can't be read any more."""
        if isinstance(self.content, bytes):
            return self.content
        try:
            return read_file(self.content, LARGEST_PICTURE)
        except OSError as error:
            raise PictureError(f"can't be read ({error.strerror})") from None

    def size(self) -> tuple[int, int]:
        """Width and height as stored, by the header alone. Raises `PictureError` if that can't be read."""
        from captrain.data.decode import stored_size

        return stored_size(self.read())


@counted()
def encode_picture(data: bytes, max_side: int | None, quality: int, max_pixels: int) -> OutputPicture:
    """A JPEG of the same picture: upright, RGB, alpha over white, its longer side at most `max_side`, never enlarged.

    Colour profiles are ignored and nothing but pixels is kept. Raises `PictureError` as `data.images.prepare` does.
    """
    from PIL import Image

    from captrain.data.decode import Size, decode

    def fit(size: Size) -> Size:
        scale = min(1.0, max_side / max(size)) if max_side else 1.0
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    image = decode(data, max_pixels, fit)
    if image.size != (wanted := fit(image.size)):
        image = image.resize(wanted, Image.Resampling.LANCZOS)
    take(BYTES_TO_ENCODE * image.width * image.height)
    file = BytesIO()
    try:
        image.save(file, "JPEG", quality=quality, optimize=True)
    except OSError as error:  # a side over 65500 pixels
        raise PictureError(f"can't be a JPEG ({image.width} x {image.height} pixels; {error})") from None
    return OutputPicture(file.getvalue(), JPEG, encoded=True)


def suffix_of(beginning: bytes) -> str:
    """The usual suffix of a picture's form, by its first `LONGEST_MARK` bytes.

    >>> suffix_of(b"\\xff\\xd8\\xff\\xe0"), suffix_of(b"RIFF....WEBPVP8 ")
    ('.jpg', '.webp')
    """
    if suffix := suffix_of_content(beginning):
        return suffix
    raise PictureError("is not a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF picture")


class PictureFolder:
    """Puts pictures below a folder as files. With `link` they become hard links, and copies where that is impossible."""

    def __init__(self, folder: Path, link: bool) -> None:
        self.folder, self.link = folder, link

    def put(self, picture: OutputPicture, name: str) -> Path:
        """Store one under a name that is safe and free; returns its path. Raises `PictureError` if it is gone."""
        path = self.folder / name
        make_folders(path.parent, self.folder)
        if isinstance(picture.content, bytes):
            write_new(path, picture.content)
        else:
            self._copy(picture.content, path)
        return path

    def _copy(self, source: Path, path: Path) -> None:
        try:
            if not (self.link and self._link(source, path)):
                with open_file(source) as content, create(path) as file:
                    shutil.copyfileobj(content, file)
        except OSError as error:
            if error.filename not in (source, str(source), os.path.realpath(source)):
                raise
            raise PictureError(f"can't be read ({error.strerror})") from None

    def _link(self, source: Path, path: Path) -> bool:
        """Whether a hard link could be made; of what a symbolic link leads to, not of the link."""
        try:
            os.link(os.path.realpath(source), path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                if os.path.exists(source):  # the error names both: a full disk is no fault of the picture
                    error.filename = str(path)
                raise
            self.link = False
            logger.warning("%s: a hard link to it is not possible (%s), so images are copied", source, error.strerror)
            return False
        return True


def _beginning(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content[:LONGEST_MARK]
    with open_file(content) as file:
        return file.read(LONGEST_MARK)
