"""What `captrain score` reads: captions, references, document frequencies; and captions that are gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from captrain.metrics.document_frequencies import DocumentFrequencies
from fuzz.inputs import Parser

CAPTIONS = {"1": "a dog runs on grass", "2": "two cats sleep"}
REFERENCES = {"1": ["A dog runs on grass.", "a dog"], "2": ["Two cats sleep on a sofa."]}
NEEDS = ("captrain.inference.score", "captrain.inference.caption_files", "captrain.inference.parts_folder")


def _pair(predictions: str, references: str, wrote: str, stated: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / f"predictions{predictions}").write_text(wrote, encoding="utf-8")
        (folder / f"references{references}").write_text(stated, encoding="utf-8")

    return write


def _coco() -> str:
    annotations = [
        {"image_id": int(id), "id": 10 * at, "caption": text}
        for at, (id, texts) in enumerate(REFERENCES.items())
        for text in texts
    ]
    return json.dumps({"images": [{"id": 1}, {"id": 2}], "annotations": annotations})


def _text_folder(folder: Path) -> None:
    for id, text in CAPTIONS.items():
        for kind, content in (("predictions", text), ("references", "\n".join(REFERENCES[id]))):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{id}.txt").write_text(content + "\n", encoding="utf-8")


RESULTS = json.dumps([{"image_id": int(id), "caption": text} for id, text in CAPTIONS.items()])
JSONL = "".join(
    json.dumps({"id": id, "text": text, "references": REFERENCES[id]}) + "\n" for id, text in CAPTIONS.items()
)
CSV = "image,caption\n" + "".join(f'{id},"{text}"\n' for id, text in CAPTIONS.items())
TSV = "image\tcaption\n" + "".join(f"{id}\t{text}\n" for id, texts in REFERENCES.items() for text in texts)


def _score(folder: Path) -> None:
    from captrain.inference.score import ScoreOptions, score_systems

    predictions, references = (
        next(folder.glob(f"{name}*"), folder / f"{name}.json") for name in ("predictions", "references")
    )
    found, _ = score_systems(
        {predictions.name: predictions},
        references,
        ScoreOptions(("bleu_4", "rouge_l", "cider"), bootstrap=10, allow_missing=True),
    )
    json.dumps(found.to_dict())


def _frequencies(folder: Path) -> None:
    from captrain.inference.score import ScoreOptions, score_systems

    options = ScoreOptions(("cider",), bootstrap=0, document_frequencies=folder / "df.jsonl.gz")
    score_systems({"a": CAPTIONS}, REFERENCES, options)


def _write_frequencies(folder: Path) -> None:
    DocumentFrequencies.of(REFERENCES, name="toy").save(folder / "df.jsonl.gz")


def _go_on(folder: Path) -> None:
    """As `captrain caption --output` and `captrain evaluate` go on with what is there."""
    from captrain.inference.caption_files import CaptionLines, check_captions_file
    from captrain.inference.evaluate import Progress

    check_captions_file(folder / "out.jsonl")
    CaptionLines(folder / "out.jsonl", "skip")
    progress = Progress(folder, [], folder / "model", 1)
    assert progress.path is not None
    if (folder / "captions.jsonl").exists():
        shutil.copy(folder / "captions.jsonl", progress.path)
    Progress(folder, [], folder / "model", 1).captions([], 0)


def _outputs(folder: Path) -> None:
    (folder / "out.jsonl").write_text(JSONL)
    (folder / "out.jsonl.partial").write_text(JSONL)
    lines = [{"id": id, "captions": [[text, -1.0]]} for id, text in CAPTIONS.items()]
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


ABOUT = {
    "model": "m",
    "weights": "00",
    "decoding": {},
    "prompt": "",
    "preparation": {},
    "precision": "fp32",
    "part_images": 9,
}


def _parts(folder: Path) -> None:
    from captrain.inference.parts_folder import CaptionPart, CaptionPartNote, PartsFolder
    from captrain.records import Rejects

    (folder / "out.jsonl").write_text(JSONL)
    parts = PartsFolder(folder / "out.jsonl")
    parts.begin(ABOUT, from_scratch=False)
    for number in range(2):
        note = CaptionPartNote(f"0000{number}.000", "a.tar", "", number, True, 1, 0)
        parts.write(CaptionPart(note, [{"id": str(number), "text": "a dog"}], Rejects()))


def _go_on_with_parts(folder: Path) -> None:
    """As captioning of shards goes on, to its end."""
    from captrain.inference.parts_folder import PartsFolder
    from captrain.records import Rejects

    parts = PartsFolder(folder / "out.jsonl")
    parts.begin(ABOUT, from_scratch=False)
    parts.known()
    parts.join(sorted(parts.done), Rejects(), folder / "rejected.jsonl")
    parts.clear()
    parts.leave()


PARSERS = (
    Parser("score parts", _go_on_with_parts, {"parts": _parts}, quick=60, needs=NEEDS, writes=True),
    Parser(
        "score captions",
        _score,
        {
            "coco": _pair(".json", ".json", RESULTS, _coco()),
            "objects": _pair(".json", ".json", json.dumps(CAPTIONS), json.dumps(REFERENCES)),
            "jsonl": _pair(".jsonl", ".jsonl", JSONL, JSONL),
            "csv": _pair(".csv", ".tsv", CSV, TSV),
            "texts": _text_folder,
        },
        quick=50,
        needs=NEEDS,
    ),
    Parser("score frequencies", _frequencies, {"df": _write_frequencies}, quick=60, needs=NEEDS),
    Parser("score to go on", _go_on, {"out": _outputs}, quick=80, needs=NEEDS, writes=True),
)
