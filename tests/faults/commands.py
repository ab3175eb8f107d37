"""The commands that faults are let loose on: what they are told, what lies there before, and what may differ between runs.

All run in the watched folder `work`, beside which `inputs` lie that no command writes into.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = "--device cpu --precision fp32"
WRITE = f"{SMALL} --batch-size 2 --beams 1 --max-new-tokens 6 --workers 1"
TRAIN = (
    f"train ../inputs/photos run --model ../inputs/blip --validation-share 0.25 {WRITE.replace('--workers 1', '')} "
    "--log-every 2 --learning-rate 0.01 --rank 2 --epochs 2 --dropout 0.1"
)
MIDWAY = "--checkpoint-every 2 --keep-checkpoints 2 --keep memory"


@dataclass(frozen=True)
class Command:
    """What is told to `captrain`, first and when it is started again; what lies there before: a recipe for the folder.

    `replaces`: whether it gives up what was there (a run that goes back to a checkpoint, too), so that what was may be gone
    while the new is not there.
    """

    words: str
    again: str = ""
    before: Callable[[Path], None] | None = None
    replaces: bool = False


def make_inputs(folder: Path) -> None:
    """Everything that commands read; made once."""
    from captrain.testing import tiny_blip, tiny_photos, tiny_text_decoder, tiny_vision_encoder

    tiny_photos(folder / "photos", count=8, captions=2)
    tiny_blip(folder / "blip", width=16)
    tiny_vision_encoder(folder / "vit", width=16)
    tiny_text_decoder(folder / "gpt2", width=16)
    run(f"data convert {folder}/photos {folder}/tars --to webdataset --shard-size 3")
    run(f"encode {folder}/tars {folder}/store --encoder {folder}/vit {SMALL} --workers 1")
    run(f"data convert {folder}/photos {folder}/sidecar --to sidecar")
    work = folder.parent / "work"
    work.mkdir()
    os.chdir(work)  # the run remembers the names of what it is made of, as they are from here
    run(f"{TRAIN} {MIDWAY}")
    (work / "run").rename(folder / "run")
    os.chdir(folder)
    (folder / "mirror").mkdir()
    with zipfile.ZipFile(folder / "mirror" / "caption_datasets.zip", "w") as archive:
        archive.writestr("dataset_flickr8k.json", json.dumps({"images": [], "dataset": "flickr8k"}))
    run(f"evaluate {folder}/run {folder}/photos --output {folder}/evaluation {WRITE}")


def run(words: str) -> None:
    """An undisturbed command."""
    from captrain.cli import main

    code = main(["-q", *words.split()])
    assert code == 0, f"captrain {words}: {code}"


def _copied(*names: str) -> Callable[[Path], None]:
    """What lies there before: copies of inputs, each under a name ("sidecar:photos")."""

    def make(work: Path) -> None:
        for name in names:
            source, _, target = name.partition(":")
            origin = work.parent / "inputs" / source
            if origin.is_dir():
                shutil.copytree(origin, work / (target or source))
            else:
                shutil.copy2(origin, work / (target or origin.name))

    return make


def _half_a_run(work: Path) -> None:
    """A run that was stopped at its first checkpoint."""
    _copied("run")(work)
    run_folder = work / "run"
    first = min((run_folder / "checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in (run_folder / "checkpoints").iterdir():
        if path != first:
            shutil.rmtree(path)
    for name in ("finished.json", "report.html"):
        (run_folder / name).unlink()


def _old_captions(work: Path) -> None:
    lines = [{"id": f"photo-{number:03d}.png", "text": "an old caption"} for number in range(3)]
    (work / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


CONVERT = "data convert ../inputs/photos out --to"
CAPTION = f"caption ../inputs/run {{}} {WRITE}"

PREDICTIONS = "../inputs/evaluation/predictions.jsonl"

COMMANDS = {
    "train": Command(f"{TRAIN} {MIDWAY}"),
    "train kept": Command(f"{TRAIN} --keep disk --checkpoint-every-epochs 1"),
    "train store": Command(
        f"train ../inputs/store run --encoder ../inputs/vit --decoder ../inputs/gpt2 "
        f"{WRITE.replace('--workers 1', '')} --validation-share 0.25 --epochs 2 --log-every 2 --checkpoint-every 2"
    ),
    "train resumed": Command(f"{TRAIN} {MIDWAY} --resume", before=_half_a_run, replaces=True),
    "train overwrite": Command(
        f"{TRAIN} {MIDWAY} --overwrite", f"{TRAIN} {MIDWAY}", before=_copied("run"), replaces=True
    ),
    "caption jsonl": Command(f"{CAPTION.format('../inputs/photos')} --output captions.jsonl"),
    "caption jsonl more": Command(
        f"{CAPTION.format('../inputs/photos')} --output captions.jsonl", before=_old_captions
    ),
    "caption jsonl overwrite": Command(
        f"{CAPTION.format('../inputs/photos')} --output captions.jsonl --existing overwrite", before=_old_captions
    ),
    "caption beside": Command(f"{CAPTION.format('photos')} --extension .caption", before=_copied("photos")),
    "caption append": Command(f"{CAPTION.format('sidecar')} --existing append", before=_copied("sidecar")),
    "caption overwrite": Command(f"{CAPTION.format('sidecar')} --existing overwrite", before=_copied("sidecar")),
    "caption parts": Command(
        f"{CAPTION.format('../inputs/tars')} --output captions.jsonl --engine local --devices cpu".replace(
            "--device cpu ", ""
        )
    ),
    **{
        f"convert {form}": Command(f"{CONVERT} {form}{more}")
        for form, more in {
            "metadata-jsonl": "", "sidecar": " --images link", "kohya": "", "coco": "", "csv": "",
            "webdataset": " --shard-size 3", "parquet": " --shard-size 3",
        }.items()
    },
    "convert overwrite": Command(f"{CONVERT} sidecar --max-side 24 --overwrite", before=_copied("sidecar:out")),
    "data compile": Command("data compile sidecar", before=_copied("sidecar")),
    "data preview": Command("data preview ../inputs/photos page.html --workers 1"),
    "encode": Command(f"encode ../inputs/tars store --encoder ../inputs/vit --shard-images 2 {SMALL} --workers 1"),
    "features convert": Command("features convert ../inputs/store embeddings"),
    "export folder": Command("export ../inputs/run model"),
    "export adapter": Command("export ../inputs/run model --keep-adapter"),
    "export archive": Command("export ../inputs/run model.zip"),
    "evaluate": Command(f"evaluate ../inputs/run ../inputs/photos --output scores {WRITE}"),
    "evaluate run": Command(f"evaluate run {WRITE}", before=_copied("run")),
    "report": Command("report run", before=_copied("run")),
    "score": Command(f"score {PREDICTIONS} {PREDICTIONS} --bootstrap 0 --save-document-frequencies df.gz"),
    "data get": Command("data get flickr8k pictures --mirror {mirror} --annotations-only --yes"),
    "features merge": Command("features merge merged ../inputs/store"),
}  # fmt: skip
