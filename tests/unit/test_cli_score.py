"""`captrain score`: what it prints, its exit codes, and one line for wrong use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captrain.cli import main

WORDS = (
    "a dog runs on the green grass",
    "two cats sleep on a sofa",
    "a red bus stops at a station",
    "a man eats an apple",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """References of 40 images, a system that copies them, one that does so with other words in between, one that is bad."""
    monkeypatch.chdir(tmp_path)
    references = {f"{number:012d}.jpg": [f"{WORDS[number % 4]} near house number {number}"] for number in range(40)}
    good = [{"image_id": int(id[:12]), "caption": texts[0]} for id, texts in references.items()]
    files = {
        "refs.json": references,
        "good.json": good,
        "same.json": good[:20] + [entry | {"caption": entry["caption"] + " here"} for entry in good[20:22]] + good[22:],
        "bad.json": [entry | {"caption": f"a dog sits near tree {entry['image_id']}"} for entry in good],
        "part.json": good[:30],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "good.json", "refs.json", "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert list(found["scores"]) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert found["scores"]["bleu_4"] == pytest.approx(1)
    assert found["scores"]["cider"] == pytest.approx(10)
    assert found["images"] == 40
    assert "tokenizer:ptb" in found["signature"]
    assert set(found["intervals"]) == set(found["scores"])
    assert any("spelt differently" in note for note in found["notes"])
    assert output.err == ""


def test_several_systems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "good.json", "bad.json", "refs.json", "--json", "--metrics", "cider"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [system["name"] for system in found["systems"]] == ["good.json", "bad.json"]
    (compared,) = found["comparisons"]
    assert compared["metric"] == "cider"
    assert compared["difference"] > 0
    assert compared["p"] < 0.05


def test_the_table_marks_what_is_not_worse_than_the_best(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "good.json", "same.json", "bad.json", "refs.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    marks = {line.split()[0]: line.count("*") for line in lines[1:4]}
    assert marks == {"good.json": 6, "same.json": 6, "bad.json": 0}
    assert any("approximate randomisation" in line for line in lines)


def test_one_system_shows_intervals_and_no_more_without_resamples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "bad.json", "refs.json"]) == 0
    assert " to 0." in capsys.readouterr().out
    assert main(["score", "bad.json", "refs.json", "--bootstrap", "0"]) == 0
    assert " to 0." not in capsys.readouterr().out


def test_the_same_seed_gives_the_same_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["score", "same.json", "refs.json", "--json", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_missing_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "part.json", "refs.json"]) == 2
    assert "10 of 40 images with references have no caption" in capsys.readouterr().err
    assert main(["score", "part.json", "refs.json", "--allow-missing"]) == 0
    output = capsys.readouterr().out
    assert "10 of 40 images with references have no caption" in output
    assert "left out" in output


def test_document_frequencies_are_saved_and_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "bad.json", "refs.json", "--json", "--metrics", "cider", "--bootstrap", "0"]
    assert main([*words, "--save-document-frequencies", "all.df.gz"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main([*words, "--document-frequencies", "all.df.gz"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"] == pytest.approx(whole["scores"])
    assert "df:all(40)" in again["signature"]
    assert main([*words, "--document-frequencies", "refs.json"]) == 2
    assert "not a file of document frequencies" in capsys.readouterr().err


def test_tokenizers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "bad.json", "refs.json", "--json", "--tokenize", "characters"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "tokenizer:characters" in found["signature"]
    assert 0.1 < found["scores"]["bleu_1"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "found 0 files, expected predictions and references"),
        ("good.json", "found 1 file, expected predictions and references"),
        ("--metrics cider good.json refs.json", "--metrics took 'good.json' for a metric; put files before the flags"),
        ("good.json refs.json --metrics cidr", "unknown metric 'cidr'. Did you mean 'cider'?"),
        ("good.json good.json refs.json", "good.json: given twice"),
        ("god.json refs.json", "god.json: not found. Did you mean 'good.json'?"),
        ("good.json refs.json --clip x", "found --clip without --images"),
        ("good.json refs.json --tokenize spacy", "expected one of ptb, unicode, characters"),
        ("good.json refs.json --bootstrap -1", "--bootstrap"),
    ],
)
def test_wrong_use_is_one_line(folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_golden_scores_through_the_command_line(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_data / "data" / "coco-captions"
    golden = json.loads((source / "golden_scores_val2017.json").read_text())
    content = json.loads((source / "captions_val2017.json").read_text())
    annotations = sorted(content["annotations"], key=lambda annotation: annotation["id"])
    first = {annotation["image_id"]: annotation for annotation in reversed(annotations)}
    order = dict.fromkeys(annotation["image_id"] for annotation in annotations)
    rest = [annotation for annotation in annotations if annotation is not first[annotation["image_id"]]]
    (tmp_path / "results.json").write_text(
        json.dumps([{"image_id": id, "caption": first[id]["caption"]} for id in order])
    )
    by_image: dict[int, list[str]] = {id: [] for id in order}
    for annotation in rest:
        by_image[annotation["image_id"]].append(annotation["caption"])
    (tmp_path / "references.json").write_text(json.dumps(by_image))
    files = [str(tmp_path / "results.json"), str(tmp_path / "references.json")]
    assert main(["score", *files, "--json", "--bootstrap", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {name.lower(): value for name, value in golden.items() if name.startswith(("Bleu", "ROUGE", "CIDEr"))}
    assert found["scores"] == pytest.approx(expected, rel=1e-9)
    assert found["images"] == golden["images"]


def test_help_and_scores_load_no_torch(folder: Path) -> None:
    for words in (["score", "--help"], ["score", "good.json", "refs.json"]):
        code = f"""
import sys
import captrain.cli
code = captrain.cli.main({words!r})
print("loaded:", code, *[name for name in ("torch", "transformers", "PIL") if name in sys.modules])
"""
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert output.rsplit("loaded:", 1)[1].split() == ["0"]


def test_columns_are_named_by_the_flags_of_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{40 - n}|{n:012d}.jpg|{WORDS[n % 4]} near house number {n}\n" for n in reversed(range(40)))
    (folder / "refs.csv").write_text("id|pic|desc\n" + rows)
    command = [
        "score",
        "good.json",
        "refs.csv",
        "--image-column",
        "pic",
        "--caption-column",
        "desc",
        "--bootstrap",
        "0",
    ]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["bleu_4"] == pytest.approx(1)
    assert main([*command[:-4], "--caption-column", "dsc"]) == 2
    message = capsys.readouterr().err
    assert "refs.csv: found no reference (keys: 'id', 'pic', 'desc'), expected 'dsc' or one of: references," in message
    assert "Did you mean 'desc'?" in message
