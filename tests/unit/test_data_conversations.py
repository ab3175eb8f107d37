"""Conversations about pictures: answers are captions, a common question is the prompt, and what is left out is counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captrain.data.dataset import join_splits, load_splits
from captrain.data.options import ReadOptions
from captrain.data.readers import detect, reader
from captrain.data.readers.conversations import read, recognises
from captrain.data.readers.json_list import images_of, is_conversation, turns_of
from captrain.errors import DataError
from captrain.records import Rejects

ASK = "Describe the picture."


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n" if lines else json.dumps(rows), encoding="utf-8")
    return path


def llava(image: str | None, *turns: str) -> dict[str, Any]:
    said = [{"from": "human" if at % 2 == 0 else "gpt", "value": text} for at, text in enumerate(turns)]
    said[0]["value"] = f"<image>\n{turns[0]}"
    return {"id": "1", "conversations": said} | ({"image": image} if image else {})


def content(source: Path, rejects: Rejects | None = None, **options: Any) -> dict[str, tuple[str, ...]]:
    splits = read(str(source), Rejects() if rejects is None else rejects, ReadOptions(**options))
    return {sample.id: sample.captions for samples in splits.values() for sample in samples}


PARTS = [{"type": "image"}, {"type": "text", "text": ASK}]
LINK = {"type": "image_url", "image_url": {"url": "a.jpg"}}
SPELLINGS: list[dict[str, Any]] = [
    llava("a.jpg", ASK, "A dog."),
    {"image": "a.jpg", "conversations": [{"role": "user", "content": ASK}, {"role": "assistant", "content": "A dog."}]},
    {
        "images": ["a.jpg"],
        "messages": [{"role": "user", "content": f"<image>{ASK}"}, {"role": "assistant", "content": "A dog."}],
    },
    {
        "images": [{"bytes": None, "path": "a.jpg"}],
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        ],
    },
    {
        "messages": [
            {"role": "user", "content": [LINK, {"type": "text", "text": ASK}]},
            {"role": "assistant", "content": "A dog."},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "file://a.jpg"}, {"type": "text", "text": ASK}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        ]
    },
    {
        "conversations": [
            {"from": "user", "value": f"Picture 1: <img>a.jpg</img>\n{ASK}"},
            {"from": "assistant", "value": "A dog."},
        ]
    },
    {
        "image": {"<image_00>": "a.jpg"},
        "conversations": [
            {"role": "user", "content": f"<image_00>\n{ASK}"},
            {"role": "assistant", "content": "A dog."},
        ],
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "image": "a.jpg", "text": None}, {"type": "text", "text": ASK}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "A dog.", "image": None}]},
        ]
    },
    {
        "conversations": [
            {"role": "<|User|>", "content": f"<image_placeholder>{ASK}", "images": ["./a.jpg"]},
            {"role": "<|Assistant|>", "content": "A dog."},
        ]
    },
    {
        "image": "a.jpg",
        "prompt": [{"role": "user", "content": ASK}],
        "completion": [{"role": "assistant", "content": "A dog."}],
    },
    {"image": "a.jpg", "prompt": ASK, "completion": "A dog."},
    {"query": f"<image>{ASK}", "response": "A dog.", "images": ["a.jpg"]},
    {"instruction": f"<image>{ASK}", "input": "", "output": "A dog.", "images": ["a.jpg"]},
]


@pytest.mark.parametrize("row", SPELLINGS, ids=map(str, range(len(SPELLINGS))))
@pytest.mark.parametrize("name", ["train.json", "train.jsonl", "chat.json", "llava_v1.jsonl"])
def test_every_spelling_says_the_same(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    touch(tmp_path, "a.jpg")
    file = write(tmp_path / name, [row])
    assert detect(str(tmp_path)) == detect(str(file)) == "conversations"
    assert content(tmp_path) == content(file) == {"a.jpg": ("A dog.",)}
    assert load_splits(str(file), validation_share=0).question == ASK


def test_answers_to_the_first_question_alone_are_captions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    rows = [
        llava("a.jpg", ASK, "A dog.", "Is it red?", "No.", ASK, "A dog on grass."),
        llava("b.jpg", "Describe the picture.\n<image>", "A cat."),
        llava("b.jpg", ASK, "A black cat."),
    ]
    with caplog.at_level(logging.INFO):
        assert content(write(tmp_path / "chat.json", rows)) == {
            "a.jpg": ("A dog.", "A dog on grass."),
            "b.jpg": ("A cat.", "A black cat."),
        }
    (said,) = caplog.messages
    assert "all rows ask 'Describe the picture.', the prompt of a training for which none is given" in said
    assert "left out: 1 answer to a further question" in said


def test_different_questions_are_no_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    file = write(tmp_path / "chat.jsonl", [llava("a.jpg", ASK, "A dog."), llava("b.jpg", "What is it?", "A cat.")])
    with caplog.at_level(logging.INFO):
        splits = load_splits(str(file), validation_share=0)
    assert (splits.question, len(splits.train)) == ("", 2)
    assert "rows ask 2 different questions, so none is a training's prompt" in caplog.text


def test_rows_that_ask_nothing_have_no_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.jpg")
    said = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "A dog."}]
    with caplog.at_level(logging.INFO):
        file = write(tmp_path / "chat.json", [{"images": ["a.jpg"], "messages": said}])
        assert load_splits(str(file), validation_share=0).question == ""
    assert caplog.messages == [f"{file}: answers are captions"]


def test_rows_that_no_caption_can_come_from_are_rejected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = [
        llava("a.jpg", ASK, "A dog."),
        llava(None, "Hello", "Hi"),
        {"images": ["a.jpg", "b.jpg"], "messages": llava(None, "Compare.", "Both.")["conversations"]},
        llava("data:image/png;base64,AAAA", ASK, "A cat."),
        llava("https://example.org/a.jpg", ASK, "A cat."),
        llava("d.jpg", ASK, "A cat."),
        llava("c.jpg", ASK),
    ]
    rejects = Rejects()
    with caplog.at_level(logging.INFO):
        assert content(write(tmp_path / "chat.json", rows), rejects) == {"a.jpg": ("A dog.",)}
    reasons = {line["where"].rpartition(":")[2]: line["reason"] for line in rejects.lines}
    assert list(reasons) == ["2", "3", "4", "5", "6", "7"]
    assert [reasons[number].split(" ", 3)[:3] for number in ("2", "3", "4", "5", "6", "7")] == [
        ["names", "no", "image"],
        ["is", "about", "2"],
        ["holds", "its", "image"],
        ["names", "an", "image"],
        ["names", "an", "image"],
        ["has", "no", "caption"],
    ]
    assert "left out: 1 row about several pictures" in caplog.text


def test_splits_by_files_and_by_a_column(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    train, val = llava("a.jpg", ASK, "A dog."), llava("b.jpg", "What?", "A cat.")
    write(tmp_path / "one/train.json", [train])
    write(tmp_path / "one/val.json", [val])
    write(tmp_path / "two/chat.jsonl", [train | {"split": "train"}, val | {"split": "val"}])
    options = ReadOptions(image_root=tmp_path)
    one = load_splits(str(tmp_path / "one"), options=options)
    assert [[sample.id for sample in part] for part in (one.train, one.validation)] == [
        ["images/a.jpg"],
        ["images/b.jpg"],
    ]
    assert one.question == ASK
    two = load_splits(str(tmp_path / "two"), options=options)
    assert [[sample.id for sample in part] for part in (two.train, two.validation)] == [
        ["images/a.jpg"],
        ["images/b.jpg"],
    ]
    assert join_splits({"one": one, "again": one}).question == ASK
    assert join_splits({"one": one, "two": two}).question == ""


def test_a_row_with_a_caption_of_its_own_stays_a_row_of_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    file = write(tmp_path / "train.json", [llava("a.jpg", ASK, "A dog.") | {"caption": "a dog by hand"}])
    assert detect(str(file)) == "json"
    chosen = write(tmp_path / "chat.jsonl", [llava("a.jpg", ASK, "A dog.") | {"blip_caption": "a dog by BLIP"}])
    assert detect(str(chosen)) == "conversations"
    assert content(chosen, caption_column="blip_caption") == {"a.jpg": ("a dog by BLIP",)}


def test_other_tables_and_caption_files_of_a_folder_go_first(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    chat = {"images": ["a.jpg"], "messages": llava(None, ASK, "A dog.")["conversations"]}
    write(tmp_path / "chat.json", [chat])
    write(tmp_path / "dataset_info.json", [{"name": "x"}])
    assert detect(str(tmp_path)) == "conversations"
    (tmp_path / "a.txt").write_text("a dog", encoding="utf-8")
    assert (detect(str(tmp_path)), detect(str(tmp_path / "chat.json"))) == ("sidecar", "conversations")
    (tmp_path / "a.txt").unlink()
    write(tmp_path / "metadata.jsonl", [{"file_name": "a.jpg", "text": "a dog"}])
    assert detect(str(tmp_path)) == "jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"nothing to use \(no rows\)"),
        ('[{"image": "../a.jpg", "conversations": [{"from": "gpt", "value": "x"}]}]', "leaves the folder"),
        ('[{"image": "a.jpg", "split": "trian", "conversations": [{"from": "gpt", "value": "x"}]}]', "Did you mean"),
        ('[{"image": "a.jpg", "conversations": 5}]', "has no caption"),
        ("[5]", "entry 1 of the list is no object"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        content(tmp_path / "c.json")
    assert "\n" not in str(raised.value)
    assert not recognises(str(tmp_path / "absent.json"))


KEYS = st.sampled_from(["from", "role", "value", "content", "text", "type", "image", "images", "messages", "path"])
JSON = st.recursive(
    st.none()
    | st.integers(0, 1)
    | st.sampled_from(["human", "gpt", "user", "assistant", "<image>", "a.jpg", "A dog."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(row=st.dictionaries(KEYS | st.just("conversations"), JSON, max_size=4))
def test_any_row_gives_texts_and_names(row: dict[str, Any]) -> None:
    assert isinstance(is_conversation(row), bool)
    assert all(turn.answer.strip() and "<image>" not in turn.question for turn in turns_of(row))
    assert all(name.strip() for name in images_of(row))


def test_the_reader_is_found_by_name() -> None:
    assert reader("conversations").recognises is recognises
