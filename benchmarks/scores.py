"""Seconds to score captions: pycocoevalcap with its Java tokenizer against captrain, one core.

    python benchmarks/scores.py captions_val2017.json [--images 5000] [--rounds 1]

Takes a COCO annotation file: the first caption of each image (by annotation id) is the candidate, the next four are its
references. Each scorer tokenizes and gives BLEU-1..4, ROUGE-L and CIDEr, in a process of its own that is held to one core;
imports and reading the file are not counted. Then captrain scores 320 new captions (64 images, five each) against prepared
references with five captions an image, as self-critical training does at each step.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from machine import cpu_name

Captions = dict[str, list[str]]
Scoring = Callable[[Captions], dict[str, float]]
REWARD_IMAGES, REWARD_EACH, REWARD_ROUNDS = 64, 5, 50


def main() -> None:
    """Run both scorers in turn and print the table, or one of them (as the inner process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="COCO captions, such as captions_val2017.json")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--way", choices=["pycocoevalcap", "captrain", "rewards"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, read(options.captions, options.images))))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Both, round after round; medians, their ratio, and whether the scores agree."""
    hold_to_one_core()
    print(f"{cpu_name()}, one core, Python {platform.python_version()}, {options.images} images, four references")
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for way in ("pycocoevalcap", "captrain", "rewards"):
            command = [sys.executable, __file__, str(options.captions), "--images", str(options.images), "--way", way]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found.setdefault(way, []).append(json.loads(output.splitlines()[-1]))
    seconds = {way: statistics.median(run.pop("seconds") for run in runs) for way, runs in found.items()}
    ours, theirs = found["captrain"][0], found["pycocoevalcap"][0]
    largest = max(abs(ours[name] - theirs[name]) / theirs[name] for name in theirs)
    print(f"pycocoevalcap, Java tokenizer    {seconds['pycocoevalcap']:8.2f} s")
    print(f"captrain                         {seconds['captrain']:8.2f} s")
    print(f"times faster                     {seconds['pycocoevalcap'] / seconds['captrain']:8.1f}")
    print(f"largest relative difference      {largest:8.1e}")
    print(f"320 new captions, CIDEr          {seconds['rewards'] * 1000:8.2f} ms")


def hold_to_one_core() -> None:
    """This process and those it starts, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def read(path: Path, images: int) -> Captions:
    """Image id to its captions in the order of their ids."""
    captions: Captions = {}
    for annotation in sorted(json.loads(path.read_text())["annotations"], key=lambda annotation: annotation["id"]):
        captions.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    return dict(list(captions.items())[:images])


def measure(way: str, captions: Captions) -> dict[str, float]:
    """Scores of one way, and `seconds`."""
    if way == "rewards":
        return {"seconds": rewards(captions)}
    score = with_pycocoevalcap() if way == "pycocoevalcap" else with_captrain()
    start = time.perf_counter()
    scores = score(captions)
    return {**scores, "seconds": time.perf_counter() - start}


def with_pycocoevalcap() -> Scoring:
    """Its own tokenizer (Java, once for candidates and once for references) and scorers."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def score(captions: Captions) -> dict[str, float]:
        tokenizer = PTBTokenizer()
        candidates = tokenizer.tokenize({id: [{"caption": texts[0]}] for id, texts in captions.items()})
        references = tokenizer.tokenize(
            {id: [{"caption": text} for text in texts[1:5]] for id, texts in captions.items()}
        )
        with contextlib.redirect_stdout(io.StringIO()):
            values, _ = Bleu(4).compute_score(references, candidates)
            scores = {f"bleu_{order}": value for order, value in enumerate(values, start=1)}
            scores["rouge_l"] = float(Rouge().compute_score(references, candidates)[0])
            scores["cider"] = float(Cider().compute_score(references, candidates)[0])
        return scores

    return score


def with_captrain() -> Scoring:
    """`score_captions`, as `captrain evaluate` calls it."""
    from captrain.metrics import score_captions

    def score(captions: Captions) -> dict[str, float]:
        candidates = {id: texts[0] for id, texts in captions.items()}
        return score_captions(candidates, {id: texts[1:5] for id, texts in captions.items()}).scores

    return score


def rewards(captions: Captions) -> float:
    """Median seconds to score 320 new captions: another image's, so that most of their n-grams are not its own."""
    from captrain.metrics import Scorer

    scorer = Scorer({id: texts[:5] for id, texts in captions.items()}, ["cider"])
    ids, texts = list(captions), list(captions.values())
    seconds = []
    for turn in range(REWARD_ROUNDS):
        chosen = [(turn * REWARD_IMAGES + place) % len(ids) for place in range(REWARD_IMAGES)] * REWARD_EACH
        new = [texts[(place + number // REWARD_IMAGES) % len(texts)][turn % 5] for number, place in enumerate(chosen)]
        start = time.perf_counter()
        scorer.score([ids[place] for place in chosen], new)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
