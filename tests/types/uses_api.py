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
text = captioner("a.jpg", beams=5, max_new_tokens=20, sample=True, top_p=0.5)
several: list[captrain.Caption] = captioner.caption(["a.jpg"], batch_size=2, beams=1)
mapped: Mapping[str, object] = captioner.map({"image": ["a.jpg"]}, beams=1)
exported: Path = captrain.export(run, "model.zip", dtype="fp16", merge=True)
address: str = captrain.push(run, "ada/cats", public=True)
names: list[str] = [checkpoint.name for checkpoint in captrain.zoo()]
split_counts: Mapping[str, int] = captrain.convert(
    "photos", "shards", to="webdataset", shard_size=100, encoding="utf-8"
).written
call: str = captrain.compile("photos", overwrite=True).loads
shown: int = captrain.preview("photos", "page.html", problems=True).shown
download: captrain.Download = captrain.get("flickr8k", local=Path("there"), ask=lambda plan: plan.to_fetch < 1e9)
captrain.train(download, "runs/flickr8k", image_root=download.image_root, epochs=1)
written_as: list[str] = [form.written_as for form in captrain.formats()]
expected: captrain.EncodingEstimate = captrain.estimate("google/vit", "coco", device="a100", devices=8, measure=False)
hours: float = expected.hours
machine: captrain.CheckUp = captrain.doctor()
advice: str = machine["torch"].advice
feature_store = captrain.Store(store)
near: list[str] = [neighbour.id for neighbour in feature_store.search("a.jpg", count=3)]
joined: captrain.Store = captrain.merge_stores([feature_store, "other"], "joined")
images: int = captrain.convert_store(joined, "embeddings")
yaml: str = captrain.show_settings("recipe.yaml", rank=4)
properties: object = captrain.recipe_schema()["properties"]
recipe: captrain.ImportedRecipe = captrain.import_recipe("caption_coco.yaml", "recipe.yaml", overwrite=True)
demo: captrain.Run = captrain.run_demo("runs/demo", seed=1)
try:
    captrain.describe("photos")
except captrain.errors.SettingsError as error:
    print(error)

# What a type checker refuses; with --strict an ignore that is not needed is an error itself.
captrain.train("photos", "runs/photos", epohcs=3)  # type: ignore[call-arg]
captrain.train("photos", "runs/photos", rank="8")  # type: ignore[arg-type]
captrain.train("photos", "runs/photos", method="loar")  # type: ignore[arg-type]
captrain.caption("m", "photos", "out.jsonl", beside=True)  # type: ignore[call-overload]
captrain.convert("photos", "new", to="cooc")  # type: ignore[arg-type]
captrain.estimate("google/vit", "coco", device="h300")  # type: ignore[arg-type]
captioner("a.jpg", baems=5)  # type: ignore[call-arg]
captioner.caption(["a.jpg"], beams="5")  # type: ignore[arg-type]
captrain.trian("photos")  # type: ignore[attr-defined]
