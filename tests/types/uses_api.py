"""A program that uses the Python API, for type checkers alone: `mypy --strict tests/types/uses_api.py`. It is never run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import captrain


class Print(captrain.Callback):
    def on_epoch(self, epoch: float, scores: Mapping[str, float], captions: Sequence[captrain.Caption]) -> None:
        print(epoch, scores["cider"], captions[0].text)


def mean_length(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return sum(len(caption.split()) for caption in captions) / len(captions)


def stop_early(epoch: float, scores: Mapping[str, float], captions: Sequence[captrain.Caption]) -> bool:
    return scores["cider"] > 1


run = captrain.train(
    "photos",
    Path("runs/photos"),
    epochs=3,
    rank=8,
    freeze=["vision"],
    metric="mean_length",
    callbacks=[Print(), stop_early],
    metrics={"mean_length": mean_length},
)
cider: float = run.scores["cider"]
row: Mapping[str, object] = run.history[-1]
reveal_report: Path = run.report()
captioner = run.captioner(device="cpu")
text: str = captioner("a.jpg", beams=5)
loaded: captrain.Captioner = captrain.load(run, precision="fp32")
captions: captrain.Captions = captrain.caption(run, ["a.jpg", Path("b")], beams=3)
written: int = captrain.caption("m", "photos", "captions.jsonl", existing="overwrite").written
beside: int = captrain.caption("m", "photos", beside=True, extension=".caption").skipped
found = captrain.evaluate(run, "photos", beams=[1, 3], split="test", metrics={"mean_length": mean_length})
number: float = found.scores["cider"]
first: captrain.Caption = found.captions[0]
system = captrain.score({"1": "a dog"}, {"1": ["a dog"]}, metrics=["cider"], tokenize="ptb")
best: list[str] = captrain.compare({"a": "a.jsonl", "b": "b.jsonl"}, "refs.jsonl").best("cider")
store = captrain.encode("google/vit", "photos", "store", vectors="pooled", device=["cuda:0", "cuda:1"])
captrain.train(store, "runs/features", encoder="google/vit", decoder="gpt2")
checked: captrain.Check = captrain.check("photos", min_edge=32)
count: int = checked.counts["images"]
samples: captrain.Samples = captrain.read("photos", format="sidecar")
sample: captrain.Sample = samples[0]
test: captrain.Samples = samples["test"]
try:
    captrain.describe("photos")
except captrain.errors.SettingsError as error:
    print(error)

# What a type checker refuses; with --strict an ignore that is not needed is an error itself.
captrain.train("photos", "runs/photos", epohcs=3)  # type: ignore[call-arg]
captrain.train("photos", "runs/photos", rank="8")  # type: ignore[arg-type]
captrain.train("photos", "runs/photos", method="loar")  # type: ignore[arg-type]
captrain.caption("m", "photos", "out.jsonl", beside=True)  # type: ignore[call-overload]
captrain.trian("photos")  # type: ignore[attr-defined]
