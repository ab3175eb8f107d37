"""Flickr8k and Flickr30k as they are handed out: captions.txt (`image,caption`) or *.token (`dog.jpg#0<TAB>a dog`).

The pictures are beside the file, in `Images/`, `Flicker8k_Dataset/`, `flickr30k-images/` or the given root. With
`Flickr_8k.trainImages.txt`, `devImages` and `testImages` beside it, those lists are the splits, and a picture in none of
them is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, AnyStr

from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import on_one_line
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.readers.tables import ListedTable, folder_of_images, refuse_links
from captrain.data.safe_paths import Root, existing, refuse_pointer
from captrain.data.splits import SPLIT_NAMES
from captrain.data.text_encoding import is_wide
from captrain.disk.reading import encoding_of, mark_of, open_file
from captrain.disk.walking import names_in
from captrain.errors import DataError
from captrain.records import Rejects, Sample

TEXT_FOLDERS = ("", "Flickr8k_text", "flickr8k_text")
LARGEST_LINE = 1 << 20  # bytes

_HEADER = re.compile(rb"^(?:\xef\xbb\xbf)?image(?:_name)?\s*,\s*(?:caption|comment)(?:_text)?\s*$", re.IGNORECASE)
_TOKEN = re.compile(rb"^[^\t]+\.\w+#\d+\t")
_LIST = re.compile(r"^flickr_?\w*\.(train|dev|val|test)images\.txt$", re.IGNORECASE)


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is such a file, or a folder with one."""
    path = Path(source)
    try:
        return bool(_captions_in(path)) if path.is_dir() else path.is_file() and is_captions(path)
    except (OSError, ValueError):
        return False


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The caption files of a folder, whose names say no split."""
    return [ListedTable(file) for file in _captions_in(folder)]


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples, in the order in which the file names their images.

    Rejected are images that are missing, have no caption, or are in no list of a split, and lines of another form. Raises
    `DataError` for text that is not UTF-8, and if nothing is left.
    """
    path = existing(Path(source))
    files = [path] if path.is_file() else _captions_in(path)
    if len(files) != 1:
        names = " and ".join(file.name for file in files) or "none"
        raise DataError(
            f"{path}: expected one captions.txt or one .token file, found {names}; give the path of the one"
        )
    file = files[0]
    refuse_links(path, files, options.follow_links)
    refuse_pointer(file)
    root = options.image_root or (path if path.is_dir() else path.parent)
    gathered = GatheredCaptions(
        Root(folder_of_images(root), given=options.image_root is not None, follow_links=options.follow_links), file
    )
    splits = _splits_beside(file, options)
    for number, image, caption in captions_of(file, rejects, options.encoding):
        split = splits.get(image) if splits else "all"
        if split is None:
            rejects.add(image, f"{file}:{number}", "is in none of the lists of splits beside the file")
            splits[image] = ""
        elif split:
            gathered.add(image, (caption,) if caption else (), number, rejects, split)
    samples = gathered.samples(rejects, captioned=captioned)
    if not samples:
        raise nothing_to_use(
            path, rejects, f"expected the pictures beside {file.name}", [gathered.root], none="no lines"
        )
    return samples


def captions_of(file: Path, rejects: Rejects, encoding: str = "") -> Iterator[tuple[int, str, str]]:
    """Number, image and caption of each line. A line of another form is rejected."""
    token = not _HEADER.match(_first_line(file))
    for number, line in lines_in(file, encoding):
        if not line.strip() or (number == 1 and not token):
            continue
        image, mark, caption = line.partition("\t" if token else ",")
        if not mark or not image.strip():
            form = "name.jpg#0<TAB>caption" if token else "name.jpg,caption"
            rejects.add(
                f"{file.name}:{number}", f"{file}:{number}", f"is a row of '{on_one_line(line)}', expected {form}"
            )
            continue
        yield number, image.strip().rpartition("#")[0] or image.strip() if token else image.strip(), unquoted(caption)


def unquoted(caption: str) -> str:
    """A caption without the quotes that CSV writers put around one that has commas or quotes in it.

    >>> unquoted('"a ""big"" dog, running"')
    'a "big" dog, running'
    """
    caption = caption.strip()
    if len(caption) > 1 and caption[0] == caption[-1] == '"' and '"' not in caption[1:-1].replace('""', ""):
        return caption[1:-1].replace('""', '"').strip()
    return caption


def _splits_beside(file: Path, options: ReadOptions) -> dict[str, str]:
    """Image → split, by the lists beside a file; empty if there are none."""
    splits: dict[str, str] = {}
    for name in names_in(file.parent):
        if (found := _LIST.match(name)) and (file.parent / name).is_file():
            refuse_links(file.parent, [file.parent / name], options.follow_links)
            names = (line.strip() for _, line in lines_in(file.parent / name, options.encoding))
            splits.update((name, SPLIT_NAMES[found.group(1).lower()]) for name in names if name)
    return splits


def _captions_in(folder: Path) -> list[Path]:
    """The caption files of a folder: captions.txt, else the .token files."""
    for place in TEXT_FOLDERS:
        if (file := folder / place / "captions.txt").is_file() and is_captions(file):
            return [file]
    names = ("Flickr8k.token.txt", "*.token")
    files = {file for place in TEXT_FOLDERS for name in names for file in (folder / place).glob(name)}
    return sorted(file for file in files if file.is_file() and is_captions(file))


def is_captions(file: Path) -> bool:
    """Whether a file is Flickr's, by its first line."""
    if file.suffix.lower() not in (".txt", ".token"):
        return False
    first = _first_line(file)
    return bool(_TOKEN.match(first) or _HEADER.match(first))


def _first_line(file: Path) -> bytes:
    """Its letters in ASCII where they are in it, whatever the file's encoding."""
    with open_file(file) as opened:
        begin = opened.readline(LARGEST_LINE)
    name = encoding_of(file)
    if not is_wide(name):
        return begin.removeprefix(mark_of(begin)[0]).rstrip(b"\r\n")
    return (
        begin[: len(begin) // 4 * 4].decode(name, "replace").partition("\n")[0].rstrip("\r").encode("utf-8", "replace")
    )


def whole_line(file: IO[AnyStr]) -> AnyStr:
    """The next line of a file; of one that is too long for a caption the beginning."""
    line = piece = file.readline(LARGEST_LINE)
    while len(piece) == LARGEST_LINE and not piece.endswith("\n" if isinstance(piece, str) else b"\n"):
        piece = file.readline(LARGEST_LINE)
    return line


def lines_in(file: Path, encoding: str = "") -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line. Raises `DataError` for one that is not in the file's encoding."""
    name = encoding_of(file, encoding)
    number = 0
    try:
        if is_wide(name):
            with file.open(encoding=name, newline="\n") as wide:
                while line := whole_line(wide):
                    number += 1
                    yield number, line.rstrip("\r\n")
            return
        with open_file(file) as opened:
            while content := whole_line(opened):
                number += 1
                errors = "strict" if len(content) < LARGEST_LINE else "ignore"  # a letter may be cut
                text = content.decode(name if number == 1 else name.removesuffix("-sig"), errors).rstrip("\r\n")
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        what = name.removesuffix("-sig").upper()
        raise DataError(
            f"{file}:{number}: not {what} (byte {error.start} of the line); save it as UTF-8, or say what it is: --encoding"
        ) from None
