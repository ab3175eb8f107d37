"""Numbers that LAVIS counts in other units: tokens with start and prompt among them, and batches of pairs."""

from __future__ import annotations

from captrain.settings.lavis_imported import Imported
from captrain.settings.lavis_keys import CAPTIONS_AN_IMAGE
from captrain.settings.lavis_models import Architecture, Counted
from captrain.settings.lavis_section import Section
from captrain.settings.prompt_tokens import count_tokens


def take_lengths(run: Section, model: Section, kind: Architecture, done: Imported) -> None:
    """Lengths in tokens. captrain counts those of the caption alone, and its end."""
    prompt = done.get("prompt") or ""
    tokens, certain = count_tokens(prompt, done.get("model"))
    lengths: tuple[tuple[str, str, Counted, int], ...] = (
        ("max_len", "max_new_tokens", kind.longest, 1),
        ("min_len", "min_new_tokens", kind.shortest, 0),
    )
    for key, leaf, counted, least in lengths:
        length, before = run.take(key, "a whole number"), counted.before(tokens)
        if length is None:
            continue
        done.set(leaf, max(length - before, least))
        if before:
            what = f"the start token and the prompt's {tokens}" if counted.prompt else "the start token"
            done.note(
                f"run.{key}", f"{length} is {done.get(leaf)} here: LAVIS counts {what} too, captrain the caption alone"
            )
    before = kind.learned.before(tokens)
    done.set("max_tokens", max(model.take("max_txt_len", "a whole number", kind.max_txt_len) - before, 2))
    if not certain and any(counted.prompt for counted in (kind.longest, kind.learned)):
        done.note(
            "model.prompt",
            f"'{prompt}' is taken for {tokens} tokens, one for each word and mark: the tokenizer of {done.get('model')} is not "
            "on this machine; --model FOLDER counts with the one there",
        )


def take_batch(run: Section, datasets: Section, done: Imported) -> None:
    """Pairs of an image and a caption, as images with all of their captions."""
    pairs = run.take("batch_size_train", "a whole number")
    if pairs is None:
        return
    each = min((CAPTIONS_AN_IMAGE.get(str(name), 1) for name in datasets.values), default=1)
    done.set("batch_size", max(round(pairs / each), 1))
    said = f"{done.get('batch_size')} images of about {each} captions" if each > 1 else "as many images"
    done.note("run.batch_size_train", f"{pairs} pairs of an image and a caption are {said} here, on each device")
