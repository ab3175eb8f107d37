"""Writes images with LLaVA's conversations: a question and an answer for each caption."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, content: dict[str, tuple[str, ...]], picture: bytes) -> Path:
    """`chat.json` beside the images; a question without an answer where an image has no caption."""
    rows = []
    asked = {"from": "human", "value": "<image>\nDescribe the picture."}
    for name, captions in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
        answers = [[{"from": "gpt", "value": caption}] for caption in captions] or [[]]
        rows += [{"id": name, "image": name, "conversations": [asked, *answer]} for answer in answers]
    (folder / "chat.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder
