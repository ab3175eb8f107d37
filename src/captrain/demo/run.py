"""The demo: draw scenes, train a captioner from scratch, check what it says of new scenes, show it all in one report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import ResNetConfig, ResNetModel

from captrain.data.dataset import load_split
from captrain.data.images import ImageSpec
from captrain.demo.draw import write_dataset
from captrain.demo.scenes import Scene, is_right
from captrain.disk.folders import aside, fresh_folder, make_folder, replace_folder
from captrain.disk.locks import locked_folder
from captrain.inference.captioner import Captioner
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.records import Caption, Rejects, read_jsonl
from captrain.report.page import Card, Gallery, Headline, ReportData
from captrain.report.pictures import thumbnail
from captrain.report.run import write_report
from captrain.settings.load import resolve
from captrain.settings.schema import Settings
from captrain.training.run import train

logger = logging.getLogger(__name__)

SIDE = 96
SCENES = {"train": 4000, "validation": 100, "test": 300, "held_out": 300}
SHOWN = 24
RUN_FOLDER = "run"


@dataclass(frozen=True, slots=True)
class Check:
    """Captions of one set of scenes, and which of them have every attribute right."""

    captions: list[Caption]
    right: list[bool]

    @property
    def share(self) -> float:
        """Share of scenes described without a mistake."""
        return sum(self.right) / len(self.right)


def run_demo(out: Path, *, seed: int = 0, overwrite: bool = False) -> Path:
    """Everything, into `out`: `scenes/`, `held_out/`, `encoder/` and the run folder `run/`. Returns the report's path.

    Uses no data and no network. 3 to 8 minutes on 2 cores.
    """
    with locked_folder(out):
        checks, report = _run(out, seed, overwrite)
    _print(checks, report)
    return report


def _run(out: Path, seed: int, overwrite: bool) -> tuple[dict[str, Check], Path]:
    """Drawn, trained, checked and reported."""
    logger.info("drawing %d scenes", sum(SCENES.values()))
    run = out / RUN_FOLDER
    files = write_dataset(out, **SCENES, seed=seed, side=SIDE)
    train(demo_settings(new_encoder(out / "encoder", seed), seed), str(out / "scenes"), run, overwrite=overwrite)

    captioner = Captioner.load(str(run))
    checks = {
        "new scenes": check_captions_of(captioner, files["test"]),
        "combinations never seen in training": check_captions_of(captioner, files["held_out"]),
    }
    return checks, write_report(run, extra=findings(checks))


def demo_settings(encoder: Path, seed: int) -> Settings:
    """A small captioner, all of which learns; the settings that did best in the time that a demo may take."""
    return resolve(
        {
            "model": {
                "encoder": str(encoder),
                "tokenizer": "words",
                "decoder_layers": 2,
                "decoder_width": 96,
                "decoder_heads": 4,
                "decoder_dropout": 0.0,
                "freeze": (),
                "precision": "fp32",
            },
            "training": {
                "epochs": 7,
                "batch_size": 16,
                "learning_rate": 2e-3,
                "weight_decay": 0.05,
                "beta2": 0.98,
                "seed": seed,
            },
            "data": {"test_split": ()},  # the demo holds captions against the scenes themselves
            "generation": {"beams": 1, "max_new_tokens": 46},
        }
    )


def new_encoder(folder: Path, seed: int) -> Path:
    """A small residual network with random weights, as a checkpoint that any command takes."""
    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 96], depths=[1, 2], layer_type="basic", downsample_in_first_stage=False
    )
    half = (0.5, 0.5, 0.5)
    make_folder(folder.parent)
    with fresh_folder(folder.parent) as fresh:
        ResNetModel(config).save_pretrained(fresh)
        write_preparation(fresh, ImageSpec(SIDE, SIDE, half, half), "ViTImageProcessor")
        replace_folder(fresh, folder, aside(folder))
    return folder


def check_captions_of(captioner: Captioner, scenes: Path) -> Check:
    """Describe the scenes of a JSONL file and hold every caption against its scene, by rule."""
    samples, _ = load_split(str(scenes))
    truth = [Scene.from_list(line["scene"]) for line in read_jsonl(scenes)]
    written = captioner.stream(samples, captioner.model.decoding, Rejects(), batch_size=50)
    captions = [Caption.of(samples[index], line.text, line.score) for index, line in written]
    return Check(captions, [is_right(caption.text, scene) for caption, scene in zip(captions, truth, strict=True)])


def findings(checks: dict[str, Check]) -> ReportData:
    """What the demo adds to the run's report."""
    headlines = tuple(
        Headline(f"right on {name}", f"{result.share:.1%}", f"every attribute, {len(result.right)} scenes")
        for name, result in checks.items()
    )
    return ReportData(
        "captrain demo",
        "Scenes of shapes that captrain drew, described by a captioner that it trained on them from scratch.",
        headlines=headlines,
        galleries=tuple(_gallery(name, result) for name, result in checks.items()),
    )


def _gallery(name: str, result: Check) -> Gallery:
    """Some of the captions, the wrong ones first."""
    order = sorted(range(len(result.captions)), key=lambda index: result.right[index])[:SHOWN]
    cards = []
    for index in order:
        caption = result.captions[index]
        picture = thumbnail(Path(str(caption.image)))
        cards.append(Card(caption.text, caption.id, picture, caption.score, caption.references, result.right[index]))
    wrong = len(result.right) - sum(result.right)
    return Gallery(name[0].upper() + name[1:], tuple(cards), f"{wrong} of {len(result.right)} wrong; those come first.")


def _print(checks: dict[str, Check], report: Path) -> None:
    """The result on the terminal."""
    table = Table("scenes", "every attribute right", "of")
    for name, result in checks.items():
        table.add_row(name, f"{result.share:.1%}", str(len(result.right)))
    console = Console()
    console.print(table)
    console.print(f"report: {report}", soft_wrap=True)
