"""`captrain.Store`: what a feature store holds, whether it is whole, and what it has that is like a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captrain.api.checks import check_models, check_numbers, check_stores
from captrain.api.options import Place, place
from captrain.api.process import calling
from captrain.errors import UserError
from captrain.messages import spoken

if TYPE_CHECKING:
    from captrain.features.manage import Neighbour, Problem


class Store:
    """A feature store, as `captrain.encode` writes it. It is taken wherever a path to data is.

    >>> import pathlib, tempfile
    >>> from captrain.api.features import encode
    >>> from captrain.testing import tiny_photos, tiny_vision_encoder
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> photos, encoder = tiny_photos(folder / "photos", count=4), tiny_vision_encoder(folder / "vit")
    >>> store = Store(encode(encoder, photos, folder / "store", vectors="pooled", device="cpu"))
    >>> store.info()["images"], store.verify(), store.search(photos / "photo-002.png", count=1)[0].id
    (4, [], 'photo-002.png')
    """

    def __init__(self, path: Place) -> None:
        """Raises `DataError` where there is no store. Several may be named, with commas between them."""
        self.path = place(path)
        check_stores(self.path)

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<Store {self.path!r}>"

    def info(self) -> dict[str, Any]:
        """What it holds, as `captrain features info --json` prints it: images, captions, shards, bytes, encoder and more."""
        from captrain.features.manage import describe_store

        return describe_store(self.path)

    def verify(self) -> list[Problem]:
        """Check every file, as `captrain features verify` does. Each problem has `file` and `reason`."""
        with spoken():
            from captrain.features.manage import verify_store

            return verify_store(self.path)

    def search(
        self,
        picture: Place,
        *,
        count: int = 10,
        encoder: Place | None = None,
        trust_remote_code: bool = False,
        safetensors_only: bool = False,
    ) -> list[Neighbour]:
        """The pictures whose features are most similar to those of a picture, nearest first: `cosine`, `id`, `captions`.

        Args:
            picture: Picture to compare with.
            count: Number of pictures.
            encoder: Encoder of the store (folder or hub id). Default: where it was when the store was written.
            trust_remote_code, safetensors_only: As for `captrain.load`.
        """
        check_numbers(count=count)
        with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
            name = None if encoder is None else place(encoder)
            check_models(name)
            begin()
            from captrain.data.shards.sources import split_list
            from captrain.features.manage import search_store

            return search_store(split_list(self.path), Path(picture), encoder=name, count=count)


def merge_stores(stores: Sequence[Place], out: Place) -> Store:
    """Merge feature stores of the same encoder into one, as `captrain features merge` does.

    To train on several without merging, give their names with commas between them.

    Args:
        stores: Feature stores to merge.
        out: Folder or URL for the new store.
    """
    places = [place(store) for store in stores]
    check_stores(*places)
    with spoken():
        from captrain.features.manage import merge_stores as merge

        merge(places, place(out))
    return Store(out)


def convert_store(
    source: Place,
    out: Place,
    *,
    encoder: Place | None = None,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
) -> int:
    """Convert a feature store to clip-retrieval's embedding folder, or such a folder to a feature store; returns the images.

    An embedding folder has one vector and one caption per image: the mean of several vectors, the first of several captions.

    Args:
        source: Feature store, or embedding folder.
        out: New folder to write.
        encoder: Encoder that made the embedding folder (folder or hub id). The folder itself does not say.
        trust_remote_code, safetensors_only: As for `captrain.load`.
    """
    from captrain.data.readers.features import is_embedding_folder

    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        if not is_embedding_folder(place(source)):
            from captrain.features.manage import write_embeddings

            return write_embeddings(place(source), Path(out))
        if encoder is None:
            raise UserError(f"{place(source)}: does not say which encoder made it; name it: --encoder")
        begin()
        from captrain.features.encoder import open_encoder
        from captrain.features.manage import read_embeddings

        opened = open_encoder(place(encoder), vectors="pooled", device="cpu")
        return read_embeddings(place(source), place(out), opened).counts()["images"]
