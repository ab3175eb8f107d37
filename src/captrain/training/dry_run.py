"""What a dry run prints: what learns, the pictures, what the first sample teaches, and the settings that are not defaults."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from captrain.data.dataset import Splits
from captrain.models.contract import CaptionerModel
from captrain.models.layers.packing import IGNORED
from captrain.progress import printable
from captrain.training.plan import CaptionRules
from captrain.yaml_text import inline

WIDTH = 80
LABEL = 9  # columns of the words before a caption and its tokens
MOST_CAPTIONS = 5  # of the first sample

Sections = dict[str, dict[str, Any]]


def preview(
    given: Sections,
    decided: Sections,
    rules: CaptionRules,
    captioner: CaptionerModel,
    splits: Splits,
    parameters: dict[str, dict[str, int]],
) -> str:
    """The whole dry run as text that fits 80 columns.

    Args:
        given: By section, the settings that were given and are not the defaults.
        decided: The settings that were left open, with what the model and the machine decide.
        rules: How captions become tokens.
        captioner: The model, ready to train.
        splits: The data.
        parameters: For each part of the model, how many parameters it has (`total`) and how many learn (`trainable`).
    """
    blocks = [
        ("what learns", _parameters(parameters)),
        ("pictures", _pictures(splits)),
        (f"first targets, of {printable(splits.train[0].id)}", _targets(captioner, splits, rules)),
        ("settings that differ from the defaults", _yaml(given) or ["  none"]),
        ("settings that the model and this machine decide", _yaml(decided) or ["  none"]),
        ("all settings, with where each is from", ["  captrain config show, with the same flags"]),
    ]
    return "\n".join("\n".join([title, *lines, ""]) for title, lines in blocks)


def _parameters(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """Parameters of each part: in total, and learning."""
    yield f"  {'part':<10}{'parameters':>16}{'learning':>16}{'share':>10}"
    for part, count in counts.items():
        share = count["trainable"] / count["total"] if count["total"] else 0.0
        yield f"  {part:<10}{count['total']:>16,}{count['trainable']:>16,}{share:>10.2%}"


def _pictures(splits: Splits) -> Iterator[str]:
    """How many pictures each split has, and what was left out."""
    rows = [
        ("to train on", len(splits.train)),
        ("to validate on", len(splits.validation)),
        ("rejected", len(splits.rejects)),
    ]
    rows += [("without a caption", splits.uncaptioned)] if splits.uncaptioned else []
    for what, count in rows:
        yield f"  {what:<20}{count:>9,}"


def _targets(captioner: CaptionerModel, splits: Splits, rules: CaptionRules) -> Iterator[str]:
    """The first sample's captions as tokens: the given ones, and the learned ones."""
    every = rules.text.clean(splits.train[0].captions)
    captions = every[:MOST_CAPTIONS]
    ids, _ = captioner.tokenize(captions, rules.max_tokens)
    rows = captioner.pack([[caption] for caption in ids])
    for caption, inputs, labels in zip(captions, rows.input_ids.tolist(), rows.labels.tolist(), strict=True):
        length = max(place for place, label in enumerate(labels) if label != IGNORED) + 1
        learned = [label for label in labels if label != IGNORED]
        yield from _labelled("caption", printable(caption))
        yield from _labelled("input", _tokens(captioner, inputs[:length]))
        yield from _labelled("learns", _tokens(captioner, learned))
    if len(every) > len(captions):
        yield f"  and {len(every) - len(captions)} more captions"


def _labelled(label: str, text: str) -> list[str]:
    """A label and its text, with wrapped lines indented below the text."""
    return wrap(text, WIDTH, initial_indent=f"  {label:<{LABEL}}", subsequent_indent=" " * (LABEL + 2)) or [
        f"  {label}"
    ]


def _tokens(captioner: CaptionerModel, ids: list[int]) -> str:
    """The tokens of ids. An id that the tokenizer does not know, such as BLIP's start token, is shown as its number."""
    tokens = captioner.tokenizer.convert_ids_to_tokens(ids)
    return " ".join(
        f"<{id}>" if token is None else printable(str(token)) for id, token in zip(ids, tokens, strict=True)
    )


def _yaml(sections: Sections) -> list[str]:
    """Non-empty sections as lines of a recipe."""
    lines = []
    for name, values in sections.items():
        lines += [f"  {name}:"] * bool(values) + [f"    {leaf}: {inline(value)}" for leaf, value in values.items()]
    return lines
