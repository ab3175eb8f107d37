"""METEOR and SPICE, which exist as Java programs only: those that come with pycocoevalcap (`captrain[java-metrics]`).

Each runs in a process of its own, with a limit on its memory and its time, so that nothing it does can take other
scores down. What it needs (Java, its files) is looked for before any work begins.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO

from captrain.errors import CaptrainError, SettingsError

Candidates = Mapping[str, str]
"""Image id to the tokens of its caption, spaces between."""
References = Mapping[str, Sequence[str]]
"""Image id to the same of each of its references."""
MetricScores = tuple[dict[str, float], dict[str, dict[str, float]]]
"""Scores of the set by name, and image id to scores by name."""

JAVA_METRICS = ("meteor", "spice")
INSTALL = "pip install 'captrain[java-metrics]'"
START_SECONDS = 300.0
SECONDS_AN_IMAGE = 0.5
"""Time limits, ten times what a slow machine needs."""
VERSION_SECONDS = 30.0
LONGEST_COMPLAINT = 10_000
_MODELS = "stanford-corenlp-3.6.0-models.jar"
_OPENED = ("java.lang", "java.math", "java.net", "java.text", "java.util", "java.util.concurrent")
"""Packages that SPICE's cache looks into, which Java 16 and later forbid unless told otherwise."""


class JavaError(CaptrainError):
    """A Java metric could not be computed; the other metrics are not affected."""


def check_java(metrics: Sequence[str]) -> None:
    """Check that everything that the Java metrics among `metrics` need is installed.

    Raises `SettingsError` saying what is missing and how to get it.
    """
    for name in metrics:
        if name in JAVA_METRICS:
            _java_version(name)
            jar = _folder(name) / JARS[name]
            if not jar.is_file():
                raise SettingsError(f"{name} needs {jar}, which is not there; install pycocoevalcap again: {INSTALL}")
            if name == "spice" and not (_folder(name) / "lib" / _MODELS).is_file():
                raise SettingsError(
                    f"spice needs the Stanford CoreNLP 3.6.0 models ({_folder(name) / 'lib' / _MODELS}), which do not come "
                    "with pycocoevalcap; download them once with: python -c 'from pycocoevalcap.spice."
                    "get_stanford_models import get_stanford_models; get_stanford_models()'"
                )


def score_java(name: str, candidates: Candidates, references: References, seconds: float | None = None) -> MetricScores:
    """METEOR or SPICE of the set and of each image, from Penn Treebank tokens, as pycocoevalcap 1.2 computes them.

    METEOR of the set is computed from sums over images, like BLEU; SPICE of the set is the mean of the images'.

    Args:
        seconds: time limit. Default: five minutes and half a second an image.

    Raises `JavaError` when the program fails, answers nonsense or runs past its time. Call `check_java` before.
    """
    limit = START_SECONDS + SECONDS_AN_IMAGE * len(candidates) if seconds is None else seconds
    try:
        of_set, of_images = _PROGRAMS[name](candidates, references, limit)
    except subprocess.TimeoutExpired:
        raise JavaError(f"{name} was stopped after {limit:.0f} s") from None
    except OSError as error:
        raise JavaError(f"{name} could not be started ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JavaError(f"{name} gave an answer that can't be read ({type(error).__name__}: {error!s:.100})") from None
    return {name: of_set}, {id: {name: value} for id, value in of_images.items()}


def _meteor(candidates: Candidates, references: References, limit: float) -> tuple[float, dict[str, float]]:
    """METEOR 1.5, English, normalised: it is asked for the statistics of each pair, then for the scores of all of them."""
    pairs = [" ||| ".join(["SCORE", *map(_line, references[id]), _line(caption)]) for id, caption in candidates.items()]
    arguments = ["-Xmx2G", "-jar", str(_folder("meteor") / JARS["meteor"]), "-", "-", "-stdio", "-l", "en", "-norm"]
    with _talk("meteor", arguments, limit) as ask:
        statistics = ask(pairs, len(pairs))
        *of_images, of_set = map(float, ask([" ||| ".join(["EVAL", *statistics])], len(pairs) + 1))
    return of_set, dict(zip(candidates, of_images, strict=True))


def _line(caption: str) -> str:
    """A caption as one field of METEOR's line protocol."""
    return " ".join(caption.splitlines()).replace("|||", "")


def _spice(candidates: Candidates, references: References, limit: float) -> tuple[float, dict[str, float]]:
    """SPICE 1.0: the F-score of each image. An image of whose captions nothing can be parsed counts as 0."""
    ids = list(candidates)
    content = [
        {
            "image_id": number,
            "test": " ".join(candidates[id]),
            "refs": [" ".join(caption) for caption in references[id]],
        }
        for number, id in enumerate(ids)
    ]
    with tempfile.TemporaryDirectory(prefix="captrain-spice-") as folder:
        asked, answered, cache = (Path(folder, name) for name in ("in.json", "out.json", "cache"))
        cache.mkdir()
        asked.write_text(json.dumps(content), encoding="utf-8")
        files = [str(asked), "-cache", str(cache), "-out", str(answered), "-subset", "-silent"]
        opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED] if _java_version("spice") > 8 else []
        arguments = ["-Xmx8G", *opened, "-jar", str(_folder("spice") / JARS["spice"]), *files]
        with tempfile.TemporaryFile() as complaints, _start("spice", arguments, complaints) as process:
            try:
                process.communicate(timeout=limit)
            finally:
                process.kill()
            _check_end("spice", process, complaints)
        answers = json.loads(answered.read_text(encoding="utf-8"))
    of_images = {ids[answer["image_id"]]: _finite(answer["scores"]["All"]["f"]) for answer in answers}
    return sum(of_images.values()) / len(ids), {id: of_images[id] for id in ids}


def _finite(value: float | None) -> float:
    number = float(value or 0.0)
    return number if number == number else 0.0


@contextmanager
def _talk(name: str, arguments: Sequence[str], limit: float) -> Iterator[Callable[[Sequence[str], int], list[str]]]:
    """A running Java program, as a function from lines to the lines that it answers; it is killed when time is up."""
    with tempfile.TemporaryFile() as complaints, _start(name, arguments, complaints) as process:
        out_of_time = threading.Event()

        def stop() -> None:
            out_of_time.set()
            process.kill()

        timer = threading.Timer(limit, stop)
        timer.start()

        def ask(lines: Sequence[str], answers: int) -> list[str]:
            # Written by a thread, since the program answers before it has read everything.
            writer = threading.Thread(target=_write, args=(process, lines), daemon=True)
            writer.start()
            found = [line.decode("utf-8", "replace").strip() for line in islice(_stdout(process), answers)]
            if out_of_time.is_set():
                raise JavaError(f"{name} was stopped after {limit:.0f} s")
            if len(found) < answers:
                _check_end(name, process, complaints)
                raise ValueError(f"{len(found)} lines, expected {answers}")
            writer.join()
            return found

        try:
            yield ask
        finally:
            timer.cancel()
            process.kill()
            _close(process)


def _start(name: str, arguments: Sequence[str], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    """A Java program in its own folder."""
    return subprocess.Popen(
        [_java(name), "-Dfile.encoding=UTF-8", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        cwd=_folder(name),
    )


def _write(process: subprocess.Popen[bytes], lines: Sequence[str]) -> None:
    """Hand lines to a program; the reader of its answers notices if it has ended."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        process.stdin.flush()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the input: lines that a dead program did not read are no error."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _check_end(name: str, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
    """Raise `JavaError` with the first thing it complained of, for a program that failed by itself."""
    if process.wait(timeout=VERSION_SECONDS):
        complaints.seek(0)
        said = complaints.read(LONGEST_COMPLAINT).decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise JavaError(f"{name} failed with exit code {process.returncode}: {said[0]:.200}")


def _java(name: str) -> str:
    found = shutil.which("java")
    if found is None:
        raise SettingsError(
            f"{name} needs Java 8 or later, and there is no 'java'; install a Java runtime, or leave it out"
        )
    return found


def _java_version(name: str) -> int:
    """Java's major version, 8 for "1.8.0_392". Raises `SettingsError` if it is not there or does not start."""
    try:
        said = subprocess.run([_java(name), "-version"], capture_output=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{name} needs Java, and 'java -version' does not answer ({error!s:.100})") from None
    words = (said.stderr + said.stdout).decode("utf-8", "replace")
    version = re.search(r'version "(?:1\.)?(\d+)', words)
    if said.returncode or version is None:
        first = next(iter(words.strip().splitlines()), "nothing")
        raise SettingsError(f"{name} needs Java, and 'java -version' says: {first:.200}; install a Java runtime")
    if int(version[1]) < 8:
        raise SettingsError(f"{name} needs Java 8 or later, found {version[0]}")
    return int(version[1])


def _folder(name: str) -> Path:
    """Where pycocoevalcap keeps a metric's program."""
    package = find_spec("pycocoevalcap")
    places = package.submodule_search_locations if package else None
    if not places:
        raise SettingsError(f"{name} needs pycocoevalcap, which is not installed: {INSTALL}")
    return Path(next(iter(places)), name)


JARS = {"meteor": "meteor-1.5.jar", "spice": "spice-1.0.jar"}
_PROGRAMS: Mapping[str, Callable[[Candidates, References, float], tuple[float, dict[str, float]]]] = {
    "meteor": _meteor,
    "spice": _spice,
}
