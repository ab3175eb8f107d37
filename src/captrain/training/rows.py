"""Training rows: an image with the captions it carries this epoch, drawn by seed, epoch and image alone.

Words hidden from the text half while it learns: it has to look at the image to go on.

An epoch in batches of rows that are about as long: what is computed for padding is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from captrain.data.augment import generator
from captrain.data.caption_text import CaptionText
from captrain.data.mix import Mixture
from captrain.data.samples import key_of
from captrain.errors import SettingsError
from captrain.features.training_images import Images
from captrain.models.captioner import CaptionerModel
from captrain.models.layers.packing import IGNORED, PackedRows, pack
from captrain.records import Sample
from captrain.settings.schema import TrainingSettings

AS_WRITTEN = CaptionText()
CHUNK = 1024
CaptionsPerImage = str | int


class Row(NamedTuple):
    """An image by its position, and the captions (token ids) that it carries in an epoch.

    A row that is not `learned` only keeps a process busy that has no row of a batch: nothing comes of it.
    """

    image: int
    epoch: int
    captions: list[list[int]]
    learned: bool = True


class Captions(Protocol):
    """The captions of samples as token ids, as an epoch shows them."""

    def __len__(self) -> int: ...

    def at(self, sample: int, epoch: int) -> list[list[int]]: ...


class TokenizedCaptions:
    """The token ids of all captions of all samples, tokenised once, in one flat array.

    `captions[i]` are the captions of sample i, `repeats[i]` how often an epoch shows it. `cut` counts captions that were
    longer than allowed.
    """

    def __init__(
        self, captioner: CaptionerModel, samples: Sequence[Sample], max_tokens: int, text: CaptionText = AS_WRITTEN
    ) -> None:
        pieces: list[np.ndarray] = []
        lengths: list[int] = []
        counts: list[int] = []
        repeats: list[int] = []
        self.cut = 0
        for start in range(0, len(samples), CHUNK):
            chunk = [samples[index] for index in range(start, min(start + CHUNK, len(samples)))]
            repeats += [sample.repeats for sample in chunk]
            captions = [text.clean(sample.captions) for sample in chunk]
            counts += [len(texts) for texts in captions]
            ids, cut = captioner.tokenize([text for texts in captions for text in texts], max_tokens)
            self.cut += cut
            lengths += [len(caption) for caption in ids]
            pieces += [np.array(caption, dtype=np.int32) for caption in ids]
        self.tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        self.caption_ends = np.cumsum([0, *lengths])
        self.sample_ends = np.cumsum([0, *counts])
        self.repeats = np.array(repeats, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sample_ends) - 1

    @property
    def total(self) -> int:
        """How many captions."""
        return len(self.caption_ends) - 1

    @property
    def lengths(self) -> np.ndarray | None:
        """How many tokens the row of each sample has, a start token a caption counted in (samples,)."""
        tokens = self.caption_ends + np.arange(len(self.caption_ends))
        return np.diff(tokens[self.sample_ends])

    def __getitem__(self, sample: int) -> list[list[int]]:
        first, last = self.sample_ends[sample], self.sample_ends[sample + 1]
        ends = self.caption_ends
        return [self.tokens[ends[caption] : ends[caption + 1]].tolist() for caption in range(first, last)]

    def at(self, sample: int, epoch: int) -> list[list[int]]:
        """The same in every epoch."""
        return self[sample]


class VariedCaptions:
    """Captions whose words change from epoch to epoch (shuffled tags, say), so that they are tokenised when asked for."""

    def __init__(
        self, captioner: CaptionerModel, samples: Sequence[Sample], max_tokens: int, text: CaptionText, seed: int
    ) -> None:
        self.captioner, self.samples, self.max_tokens, self.text, self.seed = captioner, samples, max_tokens, text, seed

    def __len__(self) -> int:
        return len(self.samples)

    def at(self, sample: int, epoch: int) -> list[list[int]]:
        """As seed, epoch and the sample's id decide."""
        found = self.samples[sample]
        random = generator(self.seed, epoch, key_of(found.id), "caption")
        ids, _ = self.captioner.tokenize(self.text.vary(self.text.clean(found.captions), random), self.max_tokens)
        return ids


class TrainingRows(Dataset[Row]):
    """Row (epoch, i): image i and the captions that it carries in that epoch. Row (epoch, ~i) is the same, not learned."""

    def __init__(self, captions: Captions, captions_per_image: CaptionsPerImage, seed: int) -> None:
        self.captions = captions
        self.most = {"all": None, "one": 1}.get(str(captions_per_image), captions_per_image)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, place: tuple[int, int]) -> Row:
        epoch, index = place
        if index < 0:
            return self[epoch, ~index]._replace(learned=False)
        captions = self.captions.at(index, epoch)
        if self.most is None or len(captions) <= int(self.most):
            return Row(index, epoch, captions)
        draw = np.random.default_rng([self.seed, epoch, index])
        chosen = sorted(draw.choice(len(captions), int(self.most), replace=False))
        return Row(index, epoch, [captions[number] for number in chosen])


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch in its order, as the mixture has them, and of each what one of several processes takes.

    Yields lists of (epoch, image). A batch is the same whatever the number of processes; they deal it out one by one. Who
    gets nothing of the last one, because it is short, takes its first row to compute with and not to learn (`~image`).

    >>> sampler = EpochSampler(Mixture(np.zeros(5, int)), batch_size=2, rank=1, size=2)
    >>> [[row[1] >= 0 for row in batch] for batch in sampler]
    [[True], [True], [False]]
    """

    def __init__(self, mixture: Mixture, batch_size: int, rank: int = 0, size: int = 1) -> None:
        self.mixture, self.images, self.rank, self.size = mixture, batch_size, rank, size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.mixture) // self.images)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.mixture.order(self.epoch)
        for start in range(0, len(order), self.images):
            batch = order[start : start + self.images]
            own = batch[self.rank :: self.size] if len(batch) > self.rank else ~batch[:1]
            yield [(self.epoch, int(index)) for index in own]


class Collator:
    """Rows as keyword arguments of a captioner's forward: images from where they are kept, captions packed.

    `captions` counts those that were packed so far.
    """

    def __init__(self, captioner: CaptionerModel, images: Images, hide_words: WordDropout | None = None) -> None:
        self.hide_words = hide_words
        self.start, self.end, self.prompt = captioner.start_id, captioner.end_id, captioner.prompt_ids()
        self.images = images
        self.captions = 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Pack a batch of rows."""
        self.captions += sum(len(row.captions) for row in rows)
        packed = pack([row.captions for row in rows], self.start, self.end, self.prompt)
        for number, row in enumerate(rows):
            if not row.learned:
                packed.labels[number] = IGNORED
        if self.hide_words is not None:
            self.hide_words(packed, [(row.epoch, row.image) for row in rows], 1 + len(self.prompt))
        images: dict[str, torch.Tensor] = self.images.rows([row.image for row in rows], rows[0].epoch)
        return {**images, **packed.to_dict()}


APART = 0x776F7264  # tells this draw from others of the same seed, epoch and image


class WordDropout:
    """Replaces a share of the tokens that are read; those to be written stay (Bowman et al. 2016).

    What is hidden is decided by seed, epoch and image alone, whoever else is in the batch.
    """

    def __init__(self, share: float, hidden_id: int, seed: int) -> None:
        self.share, self.hidden_id, self.seed = share, hidden_id, seed

    def __call__(self, packed: PackedRows, places: Iterable[tuple[int, int]], given: int) -> None:
        """Hide tokens of packed rows, in place.

        Args:
            places: epoch and image of each row. given: tokens at the start of each caption that are never hidden.
        """
        longest = packed.input_ids.shape[1]
        draws = [np.random.default_rng([APART, self.seed, *place]).random(longest) for place in places]
        hidden = (
            torch.from_numpy(np.stack(draws) < self.share) & (packed.position_ids >= given) & (packed.caption_ids > 0)
        )
        packed.input_ids[hidden] = self.hidden_id


def word_dropout(captioner: CaptionerModel, training: TrainingSettings) -> WordDropout | None:
    """As the settings ask, None where they don't. Hidden words are read as the tokenizer's mask, or its unknown token.

    Raises `SettingsError` for a tokenizer that has neither.
    """
    if not training.word_dropout:
        return None
    found = (captioner.tokenizer.mask_token_id, captioner.tokenizer.unk_token_id)
    hidden = next((int(id) for id in found if id is not None), None)
    if hidden is None:
        raise SettingsError("word_dropout: the tokenizer has neither a mask nor an unknown token; leave it out")
    return WordDropout(training.word_dropout, hidden, training.seed)


class LengthMixture(Mixture):
    """A mixture whose epochs come in batches of even rows, still shuffled among and inside windows of some batches."""

    def __init__(self, mixture: Mixture, lengths: np.ndarray, batch_size: int, window: int) -> None:
        """`lengths`: tokens of each image's row (images,). batch_size: rows a step. window: batches sorted together."""
        self.mixture, self.lengths, self.seed = mixture, lengths, mixture.seed
        self.batch_size, self.window = batch_size, window

    def __len__(self) -> int:
        return len(self.mixture)

    def order(self, epoch: int) -> np.ndarray:
        """The rows of that epoch of the mixture, sorted inside windows."""
        return by_length(self.mixture.order(epoch), self.lengths, self.batch_size, self.window, (self.seed, epoch))


def by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, window: int, seed: tuple[int, ...] = (0,)
) -> np.ndarray:
    """A shuffled order, in which each batch holds rows that are about as long.

    Args:
        order: positions of images, shuffled (rows,). lengths: of each image's row (images,). window: whole batches that are
            sorted together, and then shuffled as batches, by `seed`.

    Returns:
        The same positions (rows,). What is left of the last batch stays at the end, as it was.

    >>> by_length(np.array([0, 1, 2, 3, 4]), np.array([9, 1, 8, 2, 5]), batch_size=2, window=2).tolist()
    [1, 3, 2, 0, 4]
    """
    whole = len(order) // batch_size * batch_size
    draw = np.random.default_rng([*seed, batch_size, window])
    pieces = []
    for start in range(0, whole, batch_size * window):
        rows = order[start : min(start + batch_size * window, whole)]
        batches = rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, batch_size)
        pieces.append(draw.permutation(batches).reshape(-1))
    return np.concatenate([*pieces, order[whole:]])
