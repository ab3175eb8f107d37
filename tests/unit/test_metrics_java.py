"""METEOR for real where Java is; and programs that are missing, fail, hang or answer nonsense."""

from __future__ import annotations

import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from captrain.errors import CaptrainError, SettingsError
from captrain.metrics import java
from captrain.metrics.java import JavaError, check_java, score_java

CANDIDATES = {"1": "a dog runs", "2": "two cats", "3": ""}
REFERENCES = {"1": ["a dog runs", "dogs"], "2": ["cats sleep here"], "3": ["a bus"]}

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="needs java and pycocoevalcap"
)
needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="stands a shell script in for java")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a shell script in the place of java, and empty files in the place of pycocoevalcap's."""
    folder = tmp_path / "pycocoevalcap"
    for name, jar in java.JARS.items():
        (folder / name / "lib").mkdir(parents=True)
        (folder / name / jar).touch()
    (folder / "spice" / "lib" / java._MODELS).touch()
    monkeypatch.setattr(java, "_folder", lambda name: folder / name)

    def put(script: str, version: str = 'openjdk version "17.0.15"') -> Path:
        place = tmp_path / "java"
        place.write_text(f"#!/bin/sh\nif [ \"$1\" = -version ]; then echo '{version}' >&2; exit; fi\n{script}\n")
        place.chmod(0o755)
        monkeypatch.setattr(java.shutil, "which", lambda name: str(place))
        return folder

    return put


@needs_java
def test_meteor_for_real() -> None:
    check_java(["meteor"])
    others = {"4": "犬 が 走る", "5": "||| a dog"}
    references = {"4": ["犬 が 走る"], "5": ["a dog"]}
    scores, per_image = score_java("meteor", CANDIDATES | others, REFERENCES | references)
    assert list(per_image) == ["1", "2", "3", "4", "5"]
    # What pycocoevalcap's own class gives. The score of the set is no mean of the images'.
    of_images = [values["meteor"] for values in per_image.values()]
    assert of_images == pytest.approx([1.0, 0.14545454545454545, 0.0, 1.0, 1.0], rel=1e-9)
    assert scores["meteor"] == pytest.approx(0.46629337449087976, rel=1e-9)


@pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="needs pycocoevalcap")
@needs_java
def test_spice_says_what_it_lacks() -> None:
    if (java._folder("spice") / "lib" / java._MODELS).is_file():
        pytest.skip("the CoreNLP models are on this machine")
    with pytest.raises(SettingsError, match=r"spice needs the Stanford CoreNLP 3.6.0 models.*get_stanford_models"):
        check_java(["spice"])


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(SettingsError, match="meteor needs Java 8 or later, and there is no 'java'"):
        check_java(["cider", "meteor"])
    check_java(["cider"])


@needs_shell
def test_without_pycocoevalcap(program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("")
    monkeypatch.undo()
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    monkeypatch.setattr(java, "_java_version", lambda name: 17)
    with pytest.raises(SettingsError, match=r"meteor needs pycocoevalcap.*captrain\[java-metrics\]"):
        check_java(["meteor"])


@needs_shell
def test_java_that_is_too_old_or_broken(program) -> None:
    program("", version='java version "1.7.0_80"')
    with pytest.raises(SettingsError, match="needs Java 8 or later, found"):
        check_java(["meteor"])
    program("", version="The operation could not be completed")
    with pytest.raises(SettingsError, match="'java -version' says: The operation"):
        check_java(["meteor"])
    program("", version='java version "1.8.0_392"')
    check_java(["meteor", "spice"])


@needs_shell
def test_a_missing_jar(program) -> None:
    (program("") / "meteor" / java.JARS["meteor"]).unlink()
    with pytest.raises(SettingsError, match=r"meteor-1.5.jar, which is not there"):
        check_java(["meteor"])


@needs_shell
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'java.lang.OutOfMemoryError: Java heap space' >&2; exit 1", "exit code 1: java.lang.OutOfMemoryError"),
        ("kill -9 $$", "exit code -9: no message"),
        ("exit 0", "can't be read .*0 lines, expected 3"),
        ("yes nonsense", "can't be read"),
    ],
)
def test_a_program_that_fails(program, script: str, message: str) -> None:
    program(script)
    with pytest.raises(JavaError, match=message) as caught:
        score_java("meteor", CANDIDATES, REFERENCES)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CaptrainError)


@needs_shell
def test_a_program_that_hangs_is_stopped(program) -> None:
    program("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(JavaError, match="meteor was stopped after 0 s"):
        score_java("meteor", CANDIDATES, REFERENCES, seconds=0.3)
    assert time.monotonic() - start < 10


SPICE_ANSWER = """
while [ $# -gt 0 ]; do [ "$1" = -out ] && out=$2; shift; done
echo '[{"image_id": 1, "scores": {"All": {"f": 0.5}}}, {"image_id": 0, "scores": {"All": {"f": NaN}}},
       {"image_id": 2, "scores": {"All": {"f": 0.1}}}]' > "$out"
"""


@needs_shell
def test_spice_is_asked_and_read_by_image(program) -> None:
    program(SPICE_ANSWER)
    scores, per_image = score_java("spice", CANDIDATES, REFERENCES)
    assert per_image == {"1": {"spice": 0.0}, "2": {"spice": 0.5}, "3": {"spice": 0.1}}
    assert scores["spice"] == pytest.approx(0.2)
    program("exit 0")
    with pytest.raises(JavaError, match=r"spice could not be started|can't be read"):
        score_java("spice", CANDIDATES, REFERENCES)
