"""`captrain features convert`."""

from __future__ import annotations

from pathlib import Path

from captrain.cli.flags import TrustFlags, trust
from captrain.cli.logs import quiet_libraries
from captrain.cli.show import show_table
from captrain.errors import UserError


def convert(source: str, out: str, /, *, encoder: str | None = None, model_files: TrustFlags = None) -> int:
    """Write a feature store as clip-retrieval's embedding folder, or make a store of such a folder.

    An embedding folder has one vector and one caption an image: of several vectors it gets the mean, of captions the first.

    Args:
        source: Feature store, or embedding folder.
        out: New folder for the other form.
        encoder: The encoder that made an embedding folder (folder or hub id); the folder itself does not say.
    """
    trust(model_files)
    from captrain.data.readers.features import is_embedding_folder

    if not is_embedding_folder(source):
        from captrain.features.manage import write_embeddings

        images = write_embeddings(source, Path(out))
    elif encoder is None:
        raise UserError(f"{source}: does not say which encoder made it; name it: --encoder")
    else:
        quiet_libraries()
        from captrain.features.encoder import open_encoder
        from captrain.features.manage import read_embeddings

        images = read_embeddings(source, out, open_encoder(encoder, vectors="pooled", device="cpu")).counts()["images"]
    show_table([("images", f"{images:,}"), ("folder", out)])
    return 0
