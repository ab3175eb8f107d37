"""BLEU, ROUGE-L and CIDEr number for number against pycocoevalcap's own classes, of the set and of each image."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from captrain.metrics import Scorer, Scores, score_captions
from captrain.metrics.treebank import treebank_lines

pytest.importorskip(
    "pycocoevalcap", reason="the reference scores need pycocoevalcap: pip install 'captrain[java-metrics]'"
)

Captions = dict[str, str]
References = dict[str, list[str]]
EXACT = 1e-9  # relative difference

WORDS = [
    "a",
    "the",
    "man",
    "dog",
    "bus",
    "red",
    "two",
    "on",
    "of",
    "riding",
    "'s",
    "n't",
    "-lrb-",
    "1\xa01/2",
    "2\xa03/4",
]
WRITTEN = [
    "A man isn't riding the red bus.",
    'Two dogs near John\'s "street" (one of them)!',
    "the man on a red bus -- riding...",
    "1 1/2 dogs on 22 3/4 street",
    "It's a caf\u00e9, with \u00a32.50 & \u201cquotes\u201d; see www.x.com",
    "\U0001f600 \u2764 a cat! :)",
    "Mr. Smith's cat, at 5 p.m. in the U.S.",
    "<br /> a <b>dog</b>",
    "!!!",
    "...",
    "a black-and-white dog",
    "\u0441\u043e\u0431\u0430\u043a\u0430 runs",
]


def corpus(images: int, seed: int) -> tuple[Captions, References]:
    """Token lines: candidates (some empty, some copied) and one to five references for each image."""
    rng = random.Random(seed)

    def caption(low: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, 14)))

    references = {str(image): [caption(1) for _ in range(rng.randint(1, 5))] for image in range(images)}
    candidates = {id: rng.choice([caption(0), rng.choice(captions)]) for id, captions in references.items()}
    return candidates, references


def written(images: int, seed: int) -> tuple[Captions, References]:
    """Captions as people write them."""
    rng = random.Random(seed)

    def caption() -> str:
        return " ".join(rng.sample(WRITTEN, rng.randint(1, 3)))

    references = {str(image): [caption() for _ in range(rng.randint(1, 5))] for image in range(images)}
    return {id: rng.choice([caption(), captions[0]]) for id, captions in references.items()}, references


def expected_of(candidates: Captions, references: References) -> dict[str, tuple[float, list[float]]]:
    """pycocoevalcap's scores of token lines: of the set, and of each image."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    lists = {id: [line] for id, line in candidates.items()}
    values, each = Bleu(4).compute_score(references, lists, verbose=0)
    found: dict[str, tuple[float, Any]] = {
        f"bleu_{order}": (values[order - 1], each[order - 1]) for order in range(1, 5)
    }
    found["rouge_l"] = Rouge().compute_score(references, lists)
    found["cider"] = Cider().compute_score(references, lists)
    return {name: (float(value), [float(one) for one in per_image]) for name, (value, per_image) in found.items()}


def assert_same(found: Scores, expected: dict[str, tuple[float, list[float]]]) -> None:
    assert set(found.scores) == set(expected)
    for name, (value, per_image) in expected.items():
        assert found.scores[name] == pytest.approx(value, rel=EXACT, abs=1e-30), name
        assert [image[name] for image in found.per_image.values()] == pytest.approx(per_image, rel=EXACT, abs=1e-30)


def java_lines(captions: References) -> References:
    """What pycocoevalcap's tokenizer makes of captions."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines: References = PTBTokenizer().tokenize(
        {id: [{"caption": text} for text in texts] for id, texts in captions.items()}
    )
    return lines


@pytest.mark.parametrize(("images", "seed"), [(1, 0), (2, 1), (60, 2), (200, 3)])
def test_scores_of_token_lines(images: int, seed: int) -> None:
    candidates, references = corpus(images, seed)
    assert_same(score_captions(candidates, references, tokenizer="spaces"), expected_of(candidates, references))


@pytest.mark.parametrize(("images", "seed"), [(2, 4), (150, 5)])
def test_scores_of_written_captions(images: int, seed: int) -> None:
    """With our tokens on both sides; that they are Java's is the next test's business."""
    candidates, references = written(images, seed)
    texts = [text for captions in references.values() for text in captions]
    lines = iter(treebank_lines(texts))
    expected = expected_of(
        dict(zip(candidates, treebank_lines(list(candidates.values())), strict=True)),
        {id: [next(lines) for _ in captions] for id, captions in references.items()},
    )
    assert_same(score_captions(candidates, references), expected)


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")
def test_scores_of_written_captions_with_the_java_tokenizer() -> None:
    candidates, references = written(150, 6)
    java_candidates = {id: lines[0] for id, lines in java_lines({id: [t] for id, t in candidates.items()}).items()}
    expected = expected_of(java_candidates, java_lines(references))
    assert_same(score_captions(candidates, references), expected)
    assert_same(score_captions(java_candidates, java_lines(references), tokenizer="spaces"), expected)


def test_scores_of_every_image_of_coco(shared_data: Path) -> None:
    """The stated protocol, each image's scores against the reference classes on the reference's own tokens."""
    import gzip

    folder = shared_data / "data" / "coco-captions"
    image_of = {
        annotation["id"]: str(annotation["image_id"])
        for annotation in json.loads((folder / "captions_val2017.json").read_text())["annotations"]
    }
    with gzip.open(folder / "ptb_tokens_val2017.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = sorted((json.loads(line) for line in file), key=lambda row: row["annotation_id"])
    captions: References = {}
    lines: References = {}
    for row in rows:
        captions.setdefault(image_of[row["annotation_id"]], []).append(row["caption"])
        lines.setdefault(image_of[row["annotation_id"]], []).append(row["tokens"])
    found = score_captions(
        {id: texts[0] for id, texts in captions.items()}, {id: texts[1:] for id, texts in captions.items()}
    )
    expected = expected_of(
        {id: texts[0] for id, texts in lines.items()}, {id: texts[1:] for id, texts in lines.items()}
    )
    assert found.images == 5000
    assert_same(found, expected)


def test_several_candidates_of_an_image_score_as_each_alone() -> None:
    candidates, references = corpus(30, 7)
    scorer = Scorer(references, tokenizer="spaces")
    ids = [id for id in references for _ in range(3)]
    texts = [[candidates[id], references[id][0], ""][place % 3] for place, id in enumerate(ids)]
    together = scorer.score(ids, texts)
    for place in range(3):
        alone = expected_of(dict(zip(ids[place::3], texts[place::3], strict=True)), references)
        for name, (_, each) in alone.items():
            assert together[name][place::3].tolist() == pytest.approx(each, rel=EXACT, abs=1e-30)
