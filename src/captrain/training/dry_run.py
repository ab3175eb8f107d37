"""What a dry run prints: settings, parameters a part, and what exactly the first sample teaches."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from captrain.data.caption_text import CaptionText
from captrain.data.dataset import Splits
from captrain.models.captioner import CaptionerModel
from captrain.models.layers.packing import IGNORED
from captrain.settings.schema import Settings
from captrain.training.captions import caption_text
from captrain.yaml_text import dump_yaml


def preview(
    settings: Settings, captioner: CaptionerModel, splits: Splits, parameters: dict[str, dict[str, int]]
) -> str:
    """The whole of it as text."""
    output = io.StringIO()
    console = Console(file=output, width=120, force_terminal=False)
    console.print("settings", style="bold")
    console.print(dump_yaml(settings.model_dump(mode="json")), markup=False)
    console.print(_parameters(parameters))
    bare = f", {splits.uncaptioned} without a caption" if splits.uncaptioned else ""
    console.print(
        f"images: {len(splits.train)} to train on, {len(splits.validation)} to validate, {len(splits.rejects)} rejected{bare}"
    )
    console.print(_targets(captioner, splits, caption_text(settings.data), settings.data.max_tokens))
    return output.getvalue()


def _parameters(counts: dict[str, dict[str, int]]) -> Table:
    """Parameters of each part, all and learning."""
    table = Table("part", "parameters", "learning", "share", title="parameters", title_justify="left")
    for part, count in counts.items():
        share = count["trainable"] / count["total"] if count["total"] else 0.0
        table.add_row(part, f"{count['total']:,}", f"{count['trainable']:,}", f"{share:.2%}")
    return table


def _targets(captioner: CaptionerModel, splits: Splits, text: CaptionText, max_tokens: int) -> Table:
    """The first sample's captions as tokens: given, and learned."""
    sample = splits.train[0]
    captions = text.clean(sample.captions)
    ids, _ = captioner.tokenize(captions, max_tokens)
    rows = captioner.pack([[caption] for caption in ids])
    table = Table("caption", "input", "learned target", title=f"first sample: {sample.id}", title_justify="left")
    for caption, inputs, labels in zip(captions, rows.input_ids.tolist(), rows.labels.tolist(), strict=True):
        length = max(place for place, label in enumerate(labels) if label != IGNORED) + 1
        learned = [label for label in labels if label != IGNORED]
        table.add_row(caption, _tokens(captioner, inputs[:length]), _tokens(captioner, learned))
    return table


def _tokens(captioner: CaptionerModel, ids: list[int]) -> str:
    """Tokens of ids; an id that the tokenizer does not know (BLIP's start) as its number."""
    tokens = captioner.tokenizer.convert_ids_to_tokens(ids)
    return " ".join(f"<{id}>" if token is None else str(token) for id, token in zip(ids, tokens, strict=True))
