"""A command line that can't be understood: one line on stderr with the nearest valid name, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from captrain.cli import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train d o --bacth-size 4", "unknown flag '--bacth-size' of captrain train. Did you mean '--batch-size'?"),
        ("train --bacth-size=4 d o", "Did you mean '--batch-size'?"),
        ("train d o --frezze vision", "Did you mean '--freeze'?"),
        ("train d o --rcipe x", "Did you mean '--recipe'?"),
        ("train d o --verbos", "Did you mean '--verbose'?"),
        ("caption m a.jpg --rnak 3", "Did you mean '--rank'?"),
        ("caption m a.jpg --rank 3", "It belongs to: captrain train, captrain config show."),
        ("train d o -x", "unknown flag '-x' of captrain train."),
        ("--vrsion", "unknown flag '--vrsion' of captrain. Did you mean '--version'?"),
        ("trian d o", "unknown command 'trian' of captrain. Did you mean 'train'?"),
        ("config shw", "unknown command 'shw' of captrain config. Did you mean 'show'?"),
        ("data gte coco", "unknown command 'gte' of captrain data. Did you mean 'get'?"),
        ("trian --help", "unknown command 'trian' of captrain. Did you mean 'train'?"),
        ("data gte -h", "unknown command 'gte' of captrain data. Did you mean 'get'?"),
        ("train --help-all learnign-rate", "no section or flag 'learnign-rate'. Did you mean 'learning-rate'?"),
        ("train --help-all evalution", "no section or flag 'evalution'. Did you mean 'evaluation'?"),
        ("data get coco-karpaty x", "NAME: found 'coco-karpaty', expected one of coco-karpathy, flickr8k"),
        ("data get flicker8k", "Did you mean 'flickr8k'?"),
        ("data convert a b --to cooc", "Did you mean 'coco'?"),
        ("data check . --format cocco", "Did you mean 'coco'?"),
        ("estimate laoin-400m --encoder openai/clip-vit-base-patch32", "Did you mean 'laion-400m'? Known: coco, "),
        ("estimate coco --encoder openai/clip-vit-base-patch23", "Did you mean 'openai/clip-vit-base-patch32'?"),
        ("estimate coco --encoder e --device h10", "Did you mean 'h100'?"),
        ("score a b --metrics cidr", "unknown metric 'cidr'. Did you mean 'cider'?"),
        ("export r o --dtype fp61", "Did you mean 'fp16'?"),
        ("config show --metric cidr", "Did you mean 'cider'?"),
        ("config show --schedule cosin", "Did you mean 'cosine'?"),
        ("config show --devices cuda:0", "--devices: found 'cuda:0', expected all, numbers such as 0,1, or cpu:2"),
        ("config show --trackers tensorbord", "Did you mean 'tensorboard'?"),
        ("--install-completion --shell bsh", "Did you mean 'bash'?"),
        ("daat get coco", "unknown command 'daat' of captrain. Did you mean 'data'?"),
        ("data convert a b --to coco --limt 3", "of captrain data convert. Did you mean '--limit'?"),
        ("features verify a --batch-sze 4", "of captrain features verify. Did you mean '--batch-size'?"),
        ("train d", "captrain train: OUT is missing."),
        ("train", "captrain train: DATA is missing."),
        ("caption m", "captrain caption: IMAGES is missing."),
        ("train d o --rank", "found --rank without a value"),
        ("train d o --rank --alpha 3", "found --rank without a value"),
        ("train d o extra", "did not expect 'extra'"),
        ("train d o --rank x", "--rank: found 'x', expected a whole number"),
        ("train d o --rank=0", "--rank: found '0', expected at least 1"),
        ("train d o --rank 1 --rank 2", "--rank: given more than once"),
        (
            "train d o --freeze vision,langauge",
            "--freeze: found 'langauge', expected 'vision', 'bridge' or 'language'. Did you",
        ),
        ("train d o --captions-per-image some", "found 'some', expected 'all' or 'one' or a whole number"),
        ("caption m a --existing skp", "expected one of skip, overwrite, append, prepend. Did you mean 'skip'?"),
        ("caption m a --batch-size 0", "--batch-size: found '0', expected at least 1"),
        ("caption m a --output a.jsonl --extension .txt", "found both --output and --extension"),
        ("caption m a --extension ../../txt", "--extension: found '../../txt', expected an ending"),
        ("evaluate m d --limit 0", "--limit: found 0, which must be >= 1"),
        ("evaluate m d --limit x", "--limit: found 'x', expected a whole number"),
        ("demo o --seed x", "--seed: found 'x', expected a whole number"),
        ("train d o --recipe nowhere.yaml", "recipe nowhere.yaml: no such file"),
        ("-v -q doctor", "found both --verbose and --quiet"),
    ],
)
def test_one_line_and_exit_code_2(words: str, expected: str, capsys) -> None:
    assert main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert expected in output.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {rank: 3}", "Did you mean 'model'?"),
        ("model: {rnak: 3}", "Did you mean 'rank'?"),
        ("training: {epochs: many}", "training.epochs: found 'many', expected a whole number"),
    ],
)
def test_a_wrong_recipe(text: str, expected: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["train", "d", "o", "--recipe", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert expected in output.err
    assert str(path) in output.err


def test_a_name_can_not_steer_the_terminal(capsys) -> None:
    assert main(["train", "d", "o", "--recipe", "\x1b[2Ja\nb.yaml"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
