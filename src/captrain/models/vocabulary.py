"""A tokenizer for a new decoder: given, or trained on the captions.

What a tokenizer keeps of captions: words there and back, and which of them do not come back.

A model can only learn and write what its tokenizer holds. Words that it does not know become one and the same unknown token,
and many vocabularies drop accents or capitals without a word.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

import regex  # type: ignore[import-untyped]
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import load_tokenizer_files
from captrain.models.checkpoint.weight_files import parts_of

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
MOST_GROWTH = 1000
"""Times that a tokenizer may make a text longer. Those in use replace a character by one or two."""
UNFOLDING = {"Precompiled": 18, "NFKC": 18, "NFKD": 18, "NFC": 3, "NFD": 4}
"""Steps that write some characters as several, and how many at most (unicode.org, FAQ on normalisation)."""
SPECIAL = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}


def make_tokenizer(source: str, captions: Iterable[str], size: int, min_count: int = 2) -> PreTrainedTokenizerBase:
    """A tokenizer from `words` or `word-pieces` trained on captions, or else loaded from a folder or hub id.

    Trained ones are lower case, split at spaces and punctuation, and hold at most `size` entries, each seen at least
    `min_count` times.

    >>> tokenizer = make_tokenizer("words", ["A dog runs.", "A dog sits."], size=100)
    >>> tokenizer.convert_ids_to_tokens(tokenizer("a dog flies.", add_special_tokens=False)["input_ids"])
    ['a', 'dog', '[UNK]', '.']
    """
    trained = {"words": _words, "word-pieces": _word_pieces}
    if source not in trained:
        return load_tokenizer(source)
    tokenizer, trainer = trained[source](size, min_count)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(captions, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=True, **SPECIAL)


def has_tokenizer(folder: str) -> bool:
    """Whether a folder holds a tokenizer, whole or not."""
    return any(Path(folder, name).is_file() for name in FILES)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises `ModelError` when it has none, or one without vocabulary or end token."""
    try:
        tokenizer = load_tokenizer_files(source)
        _check_steps(source, tokenizer)
        tokenizer("a dog")  # some settings of the wrong kind show only here
    except ModelError:
        raise
    except Exception as error:  # of every kind: OSError, KeyError, plain Exception from the Rust side, ...
        raise ModelError(f"{source}: no tokenizer could be loaded ({_first_line(error)})") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a folder without a vocabulary
        raise ModelError(f"{source}: its tokenizer has no vocabulary; expected tokenizer.json or vocab.txt in it")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
        raise ModelError(f"{source}: its tokenizer has no end token; expected eos_token or sep_token")
    return tokenizer


def _check_steps(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` where the steps before or after a tokenizer make a text far longer: each may double it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for step in (getattr(backend, name, None) for name in ("normalizer", "decoder")):
        if step is not None and (growth := growth_of(json.loads(step.__getstate__()))) > MOST_GROWTH:
            raise ModelError(
                f"{source}: its tokenizer makes texts {growth:.0g} times as long, over {MOST_GROWTH}; take another one"
            )


def growth_of(step: Any) -> float:
    """How many times as long a text can get by a step of a tokenizer, as its JSON describes that.

    >>> double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    >>> growth_of({"type": "Sequence", "normalizers": [double, double, {"type": "Lowercase"}]})
    4.0
    """
    growth = 1.0
    for part in parts_of(step):
        if part.get("type") == "Replace":
            pattern = dict(part.get("pattern") or {}).get("String") or "."
            growth *= max(1.0, len(str(part.get("content", ""))) / len(pattern))
        elif part.get("type") in UNFOLDING:
            growth *= UNFOLDING[part["type"]]
    return growth


def _words(size: int, min_count: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Whole words; rarer ones become [UNK]."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL["unk_token"]))
    special = list(SPECIAL.values())
    return tokenizer, trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=special, show_progress=False
    )


def _word_pieces(size: int, min_count: int) -> tuple[Tokenizer, trainers.Trainer]:
    """WordPiece as BERT's: rare words are spelled in pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = list(SPECIAL.values())
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_count, special_tokens=special, show_progress=False
    )


def _first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


MOST_LOST = 0.1
"""Share of words above which captions are not worth learning: in a sentence of ten words one is missing."""
SMALL = 10_000
"""Entries below which a vocabulary was made for certain captions (those of published models have three times as many)."""
MOST_RARE = 0.9
"""The same share for such vocabularies, which leave rare words out on purpose: nearly nothing comes back."""
LOOKED_AT = 1000
"""Pictures, evenly spread."""
SHOWN = 5
AT_ONCE = 256
GONE = "\ufffd"

# Words of scripts without spaces are taken letter by letter, since tokenizers may put spaces between them; signs count too.
_UNSPACED = r"[\p{L}&&[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]]"
_WORD = regex.compile(rf"(?V1){_UNSPACED}\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+|\p{{So}}")
_INVISIBLE = regex.compile(r"[\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff\u00ad]")


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Words of captions that were looked at, and how many of them came back changed.

    Attributes:
        unknown: did not come back. accents: came back without accents or other marks.
        case: came back in another case or width, which is no loss by itself: published captioners write so.
        worst: the words that were lost most often, and how often. All counts are of words as they stand in captions.
        vocabulary: entries of the tokenizer.
    """

    captions: int
    words: int
    unknown: int
    accents: int
    case: int
    worst: tuple[tuple[str, int], ...]
    vocabulary: int

    @property
    def lost(self) -> int:
        """Words that are unknown or lost their accents."""
        return self.unknown + self.accents

    @property
    def share(self) -> float:
        """Share of words that are lost."""
        return self.lost / max(self.words, 1)

    @property
    def is_refused(self) -> bool:
        """Whether so many are lost that captions are not worth learning."""
        return self.share > (MOST_RARE if self.vocabulary < SMALL else MOST_LOST)

    @property
    def case_told(self) -> str:
        """What became of capitals."""
        return f"{self.case:,} of {self.words:,} words come back in lower case or another width"

    @property
    def told(self) -> str:
        """What was lost, in words.

        >>> RoundTrip(3, 20, 4, 1, 2, (("chien", 2), ("à", 1)), 30_522).told
        '5 of 20 words (25 %) in 3 captions: 4 are unknown to it, 1 lose accents; most often: "chien" 2, "à" 1'
        """
        parts = [f"{self.unknown:,} are unknown to it"] * bool(self.unknown)
        parts += [f"{self.accents:,} lose accents"] * bool(self.accents)
        worst = ", ".join(f'"{word}" {count:,}' for word, count in self.worst)
        share = f"{100 * self.share:.2g}" if self.share < 1 else "100"
        return (
            f"{self.lost:,} of {self.words:,} words ({share} %) in {self.captions:,} captions: {', '.join(parts)}; "
            f"most often: {worst}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        counts = {name: getattr(self, name) for name in ("captions", "words", "unknown", "accents", "case")}
        return {**counts, "worst": [list(pair) for pair in self.worst]}


def round_trip(tokenizer: Any, captions: Iterable[str]) -> RoundTrip:
    """Captions to tokens and back.

    >>> from captrain.models.vocabulary import make_tokenizer
    >>> words = make_tokenizer("words", ["A dog runs.", "a dog sleeps"], size=100)
    >>> found = round_trip(words, ["A dog jumps"])
    >>> found.words, found.unknown, found.case, found.worst
    (3, 1, 1, (('jumps', 1),))
    """
    counts: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    for written, returned in _there_and_back(tokenizer, captions):
        counts["captions"] += 1
        for word, kind in _compared(words_of(written), words_of(returned)):
            counts["words"] += 1
            counts[kind] += 1
            if kind in ("unknown", "accents"):
                worst[word] += 1
    return RoundTrip(
        captions=counts["captions"],
        words=counts["words"],
        unknown=counts["unknown"],
        accents=counts["accents"],
        case=counts["case"],
        worst=tuple(worst.most_common(SHOWN)),
        vocabulary=len(tokenizer),
    )


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, letters of scripts without spaces one by one, pictures such as emoji.

    >>> words_of("It doesn't cost 3€, 狗狗!")
    ['It', 'doesn', 't', 'cost', '3', '狗', '狗']
    """
    return list(_WORD.findall(unicodedata.normalize("NFC", _INVISIBLE.sub("", text))))


def spread_captions(samples: Sequence[Any]) -> Iterator[str]:
    """The captions of at most `LOOKED_AT` samples, evenly spread over all of them."""
    for index in range(0, len(samples), max(1, -(-len(samples) // LOOKED_AT))):
        yield from samples[index].captions


def _there_and_back(tokenizer: Any, captions: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Captions, and what comes back of them, with a sign in the place of what is unknown."""
    remaining = iter(captions)
    while batch := list(islice(remaining, AT_ONCE)):
        ids = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        returned = tokenizer.batch_decode(ids)
        if unknown := tokenizer.unk_token:
            returned = [text.replace(unknown, f" {GONE} ") for text in returned]
        yield from zip(batch, returned, strict=True)


def _compared(written: list[str], returned: list[str]) -> Iterator[tuple[str, str]]:
    """Each written word, and what became of it. Spaces that a tokenizer puts between the letters of a word are no loss."""
    if _folded("".join(written)) == _folded("".join(returned)):
        same = "".join(written) == "".join(returned)
        yield from ((word, "kept" if same or word == _folded(word) else "case") for word in written)
        return
    plain = [_plain(word) for word in written], [_plain(word) for word in returned]
    place = 0
    for first, second, length in SequenceMatcher(None, *plain, autojunk=False).get_matching_blocks():
        yield from ((word, "unknown") for word in written[place:first])
        pairs = zip(written[first : first + length], returned[second : second + length], strict=True)
        yield from ((word, _change(word, other)) for word, other in pairs)
        place = first + length


def _change(word: str, other: str) -> str:
    """What happened to a word that came back with the same letters."""
    if word == other:
        return "kept"
    return "case" if _folded(word) == _folded(other) else "accents"


def _folded(text: str) -> str:
    """Text without case and width."""
    return unicodedata.normalize("NFKC", text).casefold()


def _plain(word: str) -> str:
    """A word without case, width and marks."""
    letters = unicodedata.normalize("NFKD", word).casefold()
    return "".join(letter for letter in letters if not unicodedata.category(letter).startswith("M")) or word
