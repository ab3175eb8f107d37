"""Settings that change how a run computes, not what: the losses are alike, step by step, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from run_tools import QUICK, Cli, lines_of, losses_of
from safetensors.torch import load_file

from captrain.testing import tiny_photos

PLAIN = f"--validation-share 0.25 --epochs 2 --dropout 0 {QUICK}"


def trained_with(cli: Cli, photos: Path, run: Path, *words: str) -> Path:
    """A run that must succeed."""
    result = cli("train", photos, run, *words)
    assert result.code == 0, result.err
    return run


@pytest.mark.parametrize("method", ["lora", "full --freeze vision"])
def test_kept_features_equal_live_ones(method: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} --method {method} {PLAIN}"
    losses = {
        keep: losses_of(trained_with(cli, photos, tmp_path / keep, words, f"--keep {keep}"))
        for keep in ("memory", "disk", "off")
    }
    assert len(losses["memory"]) == 10
    assert losses["disk"] == losses["memory"]
    assert losses["off"] == pytest.approx(losses["memory"], abs=1e-5)


def test_kept_pixels_equal_live_ones(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} --method full {PLAIN}"
    kept = trained_with(cli, photos, tmp_path / "kept", words, "--keep memory --workers 1")
    live = trained_with(cli, photos, tmp_path / "live", words, "--keep off --workers 4")
    assert losses_of(live) == losses_of(kept)
    weights = "model/model.safetensors"
    assert (live / weights).read_bytes() == (kept / weights).read_bytes()


def test_accumulated_batches_equal_one_batch(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """8 pictures at once, or 2 x 4: also in the last step of an epoch, which has fewer (11 pictures)."""
    words = f"--model {blip} --validation-share 0.1 --epochs 2 --dropout 0 {QUICK}".replace("--batch-size 2", "")
    once = trained_with(cli, photos, tmp_path / "once", words, "--batch-size 8")
    twice = trained_with(cli, photos, tmp_path / "twice", words, "--batch-size 4 --accumulate 2")
    thrice = trained_with(cli, photos, tmp_path / "thrice", words, "--batch-size 1 --accumulate 8")
    assert len(losses_of(once)) == 4
    for run in (twice, thrice):
        assert losses_of(run) == pytest.approx(losses_of(once), abs=1e-5)
        found, expected = (load_file(path / "model" / "adapter_model.safetensors") for path in (run, once))
        assert all((found[name] - weight).abs().max() < 1e-3 for name, weight in expected.items())


def test_decode_threads_do_not_matter(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    words = f"--model {blip} {PLAIN} --keep off"
    one = trained_with(cli, photos, tmp_path / "one", words, "--workers 1")
    many = trained_with(cli, photos, tmp_path / "many", words, "--workers 8")
    assert lines_of(many / "metrics.jsonl") == lines_of(one / "metrics.jsonl")


@pytest.mark.parametrize("count", ["one", "3"])
def test_captions_are_drawn_by_seed_and_epoch(count: str, tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """Neither batches nor dropout, threads or where features are cached change which captions a picture carries."""
    words = f"--model {blip} {PLAIN} --captions-per-image {count} --learning-rate 1e-12 --epochs 1".split()
    plain = " ".join(drop_repeats(words))
    first = losses_of(trained_with(cli, photos, tmp_path / "first", plain, "--keep off"))
    again = losses_of(trained_with(cli, photos, tmp_path / "again", plain, "--keep disk --workers 3"))
    other = losses_of(trained_with(cli, photos, tmp_path / "other", plain, "--seed 1"))
    assert again == pytest.approx(first, abs=1e-5)
    assert other != pytest.approx(first, abs=1e-3)


def drop_repeats(words: list[str]) -> list[str]:
    """Flags and values, of each flag the last."""
    return [part for flag, value in dict(zip(words[::2], words[1::2], strict=True)).items() for part in (flag, value)]


def test_a_part_learns_at_its_own_rate(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """With next to no rate the vision part stays where it was, while the language part moves."""
    words = f"--model {blip} --method full --epochs 1 --vision-learning-rate 1e-12 {QUICK}"
    run = trained_with(cli, photos, tmp_path / "run", words)
    before, after = load_file(blip / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    moved = {name: float((after[name] - weight).abs().max()) for name, weight in before.items() if name in after}
    assert max(change for name, change in moved.items() if name.startswith("vision_model")) < 1e-6
    assert max(change for name, change in moved.items() if name.startswith("text_decoder")) > 1e-3


def test_evaluation_settings(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """Every second epoch and the last, two pictures of three; the loss decides which model is kept."""
    words = f"--model {blip} --evaluate-every 2 --validation-limit 2 --metric validation_loss --samples 1 {PLAIN}"
    run = trained_with(cli, photos, tmp_path / "run", words.replace("--epochs 2", "--epochs 3"))
    lines = lines_of(run / "metrics.jsonl")
    assert [line["epoch"] for line in lines if line["kind"] == "validation"] == [2.0, 3.0]
    assert len(lines_of(run / "predictions.jsonl")) == 2
    assert len(lines_of(run / "samples.jsonl")) == 2


def test_one_picture_is_enough(tmp_path: Path, cli: Cli, blip: Path) -> None:
    photos = tiny_photos(tmp_path / "one", count=1)
    run = trained_with(cli, photos, tmp_path / "run", f"--model {blip} --epochs 2 {QUICK}")
    assert len(losses_of(run)) == 2
    assert yaml.safe_load((run / "settings.yaml").read_text())["data"]["validation_images"] == 0


def test_a_prompt_is_given_and_not_learned(tmp_path: Path, cli: Cli, photos: Path, blip: Path) -> None:
    """The first sample's targets do not hold the prompt; the saved model knows it."""
    words = f"--model {blip} --epochs 1 --validation-share 0 {QUICK}"
    dry = cli("train", photos, tmp_path / "run", words, "--dry-run", "--prompt=snow")
    given, learned = (
        next(line.split()[1:] for line in dry.out.splitlines() if line.startswith(f"  {what}"))
        for what in ("input", "learns")
    )
    assert given[1] == "snow"
    assert learned[-1] == "[SEP]"
    assert len(learned) == len(given) - 1


def test_mirrored_captions_are_the_same_wherever_features_are(
    tmp_path: Path, cli: Cli, photos: Path, blip: Path
) -> None:
    """Kept or computed on the spot, in training or afterwards; and they are not those of the pictures alone."""
    words = f"--model {blip} --method lora {PLAIN} --mirror"
    runs = {
        keep: trained_with(cli, photos, tmp_path / keep, words, f"--keep {keep}") for keep in ("memory", "disk", "off")
    }
    scores = {keep: _scores(run / "predictions.jsonl") for keep, run in runs.items()}
    assert scores["disk"] == scores["memory"]
    assert scores["off"] == pytest.approx(scores["memory"], abs=1e-5)

    folder = tmp_path / "afterwards"
    options = "--split validation --device cpu --precision fp32"
    assert cli("evaluate", runs["memory"], f"{options} --output {folder}/as-trained").code == 0
    assert cli("evaluate", runs["memory"], f"{options} --no-mirror --output {folder}/plain").code == 0
    assert _scores(folder / "as-trained" / "predictions.jsonl") == pytest.approx(scores["memory"], abs=1e-5)
    assert _scores(folder / "plain" / "predictions.jsonl") != pytest.approx(scores["memory"], abs=1e-5)


def _scores(predictions: Path) -> list[float]:
    """How likely each caption was."""
    return [line["score"] for line in lines_of(predictions)]
