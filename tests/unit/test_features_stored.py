"""Features and captions out of stores, as training asks for them: each row once an epoch, right, and in the same order again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captrain.data.caption_text import CaptionText
from captrain.data.dataset import Splits, load_splits
from captrain.data.feature_store.layout import EncoderNote, FeaturesNote, Manifest, StoreFolder
from captrain.data.feature_store.shard import IndexEntry, IndexRows, ShardIndex
from captrain.data.feature_store.writer import FeatureShard, StoreWriter
from captrain.data.readers import reader
from captrain.data.samples import Mixture
from captrain.errors import DataError
from captrain.features.stored_images import StoredImages, StoredPositions, vocabulary_captions
from captrain.records import Rejects, Sample
from captrain.training import data_setup
from captrain.training.captions import StoredCaptions, TokenizedCaptions
from captrain.training.plan import CaptionRules
from captrain.training.rows import BlockMixture, by_blocks

SHARD = 4
IMAGES = 27
WORDS = ("a", "dog", "runs", "over", "the", "green", "grass")


class Words:
    """As much of a captioner as tokenising needs: a token a word."""

    def tokenize(self, captions: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
        ids = [[WORDS.index(word) for word in caption.split()] for caption in captions]
        return [caption[:max_tokens] for caption in ids], sum(len(caption) > max_tokens for caption in ids)


def captions_for(row: int) -> tuple[str, ...]:
    return tuple(" ".join(WORDS[: 1 + (row + number) % 7]) for number in range(row % 3))


def write_store(place: Path, dtype: str = "float16", images: int = IMAGES) -> None:
    """Image `row` has the numbers row, row + 0.5 and so on; every third has no caption."""
    features = FeaturesNote(tokens=2, width=3, dtype=dtype, vectors="all")  # type: ignore[arg-type]
    manifest = Manifest(
        complete=False, encoder=EncoderNote(name="vit", type="vit", weights="ab"), preparation={}, preparation_version=1,
        features=features, captioned=False, max_words=None, shard_images=SHARD,
    )  # fmt: skip
    writer = StoreWriter(StoreFolder(str(place)), manifest)
    names = [f"a.{number:03d}" for number in range(-(-images // SHARD))]
    for number, name in enumerate(names):
        shard = range(number * SHARD, min(images, (number + 1) * SHARD))
        entries = [IndexEntry(f"{row}.jpg", captions_for(row), f"a.tar:{row}", f"{row:032x}") for row in shard]
        numbers = torch.stack([torch.full((2, 3), float(row)) for row in shard]).to(getattr(torch, dtype))
        bits = (numbers.view(torch.uint16) if dtype == "bfloat16" else numbers).numpy()
        last = number == len(names) - 1
        writer.write(FeatureShard(name, "all", "a.tar", "", number, last, IndexRows(entries), [bits], Rejects()))
    writer.finish(names, Rejects())


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    """Two stores, one after the other, with a share held out."""
    write_store(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    return load_splits(f"{tmp_path / 'one'},{tmp_path / 'two'}", validation_share=0.2)


def stored(samples: Sequence[Sample], precision: torch.dtype = torch.float32) -> StoredImages:
    places = StoredPositions.of(samples)
    assert places is not None
    return StoredImages(samples, places, precision)


def row_of(sample: Sample) -> int:
    return int(sample.id.rpartition("/")[2].removesuffix(".jpg"))


def test_rows_in_any_order_are_those_of_their_samples(splits: Splits) -> None:
    images = stored(splits.train)
    order = np.random.default_rng(0).permutation(len(images))
    features = images.rows(order.tolist())["features"]
    assert features.shape == (len(images), 2, 3) and features.dtype == torch.float32
    wanted = [float(row_of(splits.train[int(position)])) for position in order]
    assert features[:, 1, 2].tolist() == wanted
    assert images.rows([3, 3])["features"][:, 0, 0].tolist() == [float(row_of(splits.train[3]))] * 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rows_keep_the_kind_of_number_where_arithmetic_is_not_fp32(tmp_path: Path, dtype: str) -> None:
    write_store(tmp_path / "store", dtype)
    samples = reader("features").read(str(tmp_path / "store"), Rejects(), captioned=False)["all"]
    found = stored(samples, torch.bfloat16).rows([5, 0])["features"]
    assert found.dtype == (torch.bfloat16 if dtype == "float32" else getattr(torch, dtype))
    assert found[:, 0, 0].tolist() == [5, 0]


def test_captions_read_by_shards_are_the_samples_captions(splits: Splits) -> None:
    wanted = [caption for sample in splits.train for caption in sample.captions]
    assert list(vocabulary_captions(splits.train)) == wanted
    assert list(vocabulary_captions([Sample("a", b"", ("x", "y"))])) == ["x", "y"]
    assert stored(splits.train).captions() == len(wanted)
    few = list(vocabulary_captions(splits.train, most=5))
    places = np.linspace(0, len(splits.train), 5, endpoint=False, dtype=int)
    assert few == [caption for place in places for caption in splits.train[int(place)].captions]


def test_tokens_of_stored_captions_are_those_of_the_tokenised_ones(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner: Any = Words()
    text = CaptionText()
    images = stored(splits.train)
    at_once, asked = TokenizedCaptions(captioner, splits.train, 4, text), StoredCaptions(captioner, images, 4, text)
    assert len(asked) == len(at_once) and asked.total == at_once.total
    assert asked.repeats.tolist() == at_once.repeats.tolist()
    for sample in range(len(at_once)):
        assert asked[sample] == at_once[sample] and asked.at(sample, 3) == at_once.at(sample, 3)
    monkeypatch.setattr(data_setup, "MOST_AT_ONCE", len(images) - 1)
    both = {"train": images, "validation": stored(splits.validation)}
    captions = data_setup.tokenize_captions(captioner, both, CaptionRules(text, max_tokens=4))
    assert [type(captions[name]) for name in ("train", "validation")] == [StoredCaptions, TokenizedCaptions]


def test_an_epoch_by_blocks_has_each_row_once_and_reads_from_few_shards_at_a_time(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "captrain.features.stored_images.psutil.virtual_memory", lambda: type("Free", (), {"available": 1})()
    )
    images = stored(splits.train)
    assert images.blocks is not None
    labels = splits.sources()
    plain = Mixture(labels, seed=5)
    mixture = BlockMixture(plain, images.blocks)
    assert len(mixture) == len(images) and mixture.seed == 5
    orders = [mixture.order(epoch) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(order.tolist()) == list(range(len(images)))
        assert order.tolist() == BlockMixture(Mixture(labels, seed=5), images.blocks).order(epoch).tolist()
    assert orders[0].tolist() != orders[1].tolist()
    two = by_blocks(plain.order(0), images.blocks, 5, 0, at_once=2)
    assert sorted(two.tolist()) == list(range(len(images)))
    met = images.blocks[two]
    first = {block: int(np.flatnonzero(met == block)[0]) for block in set(met.tolist())}
    last = {block: int(np.flatnonzero(met == block)[-1]) for block in set(met.tolist())}
    assert max(sum(first[b] <= at <= last[b] for b in first) for at in range(len(two))) <= 2


def test_stores_that_fit_into_memory_are_shuffled_as_a_whole(splits: Splits) -> None:
    assert stored(splits.train).blocks is None


ENTRY = IndexEntry("a", ("b",), "c", "0" * 32)


def index_file(path: Path, **columns: Any) -> Path:
    """An index of two rows, some columns in place of its own."""
    import pyarrow as pa

    whole = pa.ipc.open_file(IndexRows([ENTRY, ENTRY]).to_bytes()).read_all()
    for name, values in columns.items():
        whole = whole.set_column(whole.column_names.index(name), name, values)
    with pa.ipc.new_file(str(path), whole.schema) as writer:
        writer.write_table(whole)
    return path


def test_a_broken_index_is_one_line_and_leads_nowhere(tmp_path: Path) -> None:
    """Offsets that lead out of the text would be followed by who does not look."""
    import pyarrow as pa

    def opened(**columns: Any) -> ShardIndex:
        return ShardIndex.open(index_file(tmp_path / "a.arrow", **columns), "a.arrow", 2)

    def texts(offsets: list[int], data: bytes) -> Any:
        return pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(data)]
        )

    assert opened().entry(1) == ENTRY
    for columns in (
        {"id": texts([0, 1 << 30, 1], b"a")},
        {"id": texts([0, 1, 2], b"a\xff")},
        {"id": pa.array(["a", None], pa.string())},
        {"key": pa.array([1, None], pa.uint64())},
        {"source": pa.array([1, 2])},
    ):
        with pytest.raises(DataError, match=r"a\.arrow: not an index") as raised:
            index = opened(**columns)
            index.keys()
            index.entry(0)
        assert "\n" not in str(raised.value)
    (tmp_path / "a.arrow").write_bytes(b"not arrow")
    with pytest.raises(DataError, match="not an index"):
        ShardIndex.open(tmp_path / "a.arrow", "a.arrow", 2)
