"""A run folder as a report: whatever is there is shown, whatever is missing is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captrain.disk.folders import make_folder
from captrain.disk.locks import locked
from captrain.disk.writing import write_text
from captrain.errors import RunError, nearest_path
from captrain.paths import HTML, check_output_file
from captrain.records import parse_json
from captrain.report.captions import evolutions, gallery, text_of
from captrain.report.facts import commands, explained, facts, headlines, section, table_of_test, tables
from captrain.report.logs import Metrics, Problems, charts, gaps, read_lines, read_metrics
from captrain.report.page import Note, ReportData, render
from captrain.yaml_text import load_yaml

EXPECTED = "expected the folder that 'captrain train DATA OUT' writes: give OUT"
MOST_PICTURES = 48
MOST_LINES = 100  # of one note
MOST_REASONS = 10_000
LARGEST_FILE = 4 * 1024 * 1024  # settings and scores are far smaller


def write_report(run: Path, output: Path | None = None, extra: ReportData | None = None) -> Path:
    """Write the report of a run folder (to `report.html` within it, or to `output`) and return its path.

    `extra` comes before the run's own parts: headline numbers, charts, galleries of a caller.
    Raises `RunError` if `run` is not a run folder or the file can't be written, `UserError` if its name is not that of an
    HTML file.
    """
    if output is not None and not output.is_dir():
        check_output_file(output, HTML, "HTML is")
    target = output or run / "report.html"
    check_run(run)
    try:
        make_folder(target.parent)
        with locked(target):
            data = report_data(run)
            write_text(target, render(data.with_extra(extra) if extra else data))
    except OSError as error:
        raise RunError(f"{target}: the report can't be written there ({error.strerror}); give another file") from None
    return target


def report_data(run: Path, most_pictures: int = MOST_PICTURES) -> ReportData:
    """Read a run folder; at most `most_pictures` pictures are opened.

    Raises `RunError` if there is no such folder, or no metrics.jsonl in it.
    """
    check_run(run)
    problems = Problems()
    settings, scores = _settings(run / "settings.yaml", problems), _scores(run / "scores.json", problems)
    chosen_by = section(section(settings.get("settings")).get("evaluation")).get("metric")
    metrics = read_metrics(run / "metrics.jsonl", problems, text_of(chosen_by) or "cider")
    tested = _scores(run / "test" / "scores.json", problems)
    grown = evolutions(run, most_pictures, problems)
    captions = gallery(run, most_pictures - len(grown), problems)
    rejected = tuple(_rejected(run / "rejected.jsonl", problems))
    return ReportData(
        title=run.resolve().name,
        subtitle="A captioner's training, in numbers and pictures.",
        headlines=headlines(metrics, tested or scores, "test pictures" if tested else "pictures"),
        facts=tuple(facts(settings, metrics, tested, scores)),
        explained=tuple(explained([*metrics.scores, *section((tested or scores).get("scores"))])),
        charts=charts(metrics),
        evolutions=grown,
        galleries=(captions,) if captions else (),
        commands=tuple(commands(settings, str(run))),
        tables=(*table_of_test(tested), *tables(settings, metrics, scores)),
        notes=(*_remarks(scores), *_remarks(tested, "of the test captions: "), *rejected, *_notes(metrics, problems)),
    )


def check_run(run: Path) -> None:
    """Raise `RunError` if there is no such folder, or no metrics.jsonl in it."""
    if not run.is_dir():
        folders = (folder for folder in run.parent.glob("*") if (folder / "metrics.jsonl").is_file())
        raise RunError(f"{run}: no such folder.{nearest_path(run, folders)} {EXPECTED[0].upper()}{EXPECTED[1:]}")
    if not (run / "metrics.jsonl").is_file():
        raise RunError(f"{run}: holds no metrics.jsonl; {EXPECTED}")


def _settings(path: Path, problems: Problems) -> dict[str, Any]:
    """settings.yaml, or nothing where it is missing or broken."""
    try:
        return section(load_yaml(_small_text(path)))
    except ValueError as error:
        problems.add(f"{path.name}: not valid YAML ({_one_line(error)})")
        return {}


def _scores(path: Path, problems: Problems) -> dict[str, Any]:
    """scores.json, or nothing where it is missing or broken."""
    try:
        return section(parse_json(_small_text(path) or "{}"))
    except (ValueError, RecursionError) as error:
        problems.add(f"{path.name}: not valid JSON ({_one_line(error)})")
        return {}


def _small_text(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE} bytes")
    return path.read_text(encoding="utf-8")


def _one_line(error: Exception) -> str:
    return text_of(" ".join(str(error).split()))


def _rejected(path: Path, problems: Problems) -> Iterator[Note]:
    """How many samples were skipped and why, with the first hundred listed."""
    reasons: Counter[str] = Counter()
    listed: list[str] = []
    for line in read_lines(path, problems):
        reason = text_of(line.get("reason")) or "no reason given"
        reasons[reason if reason in reasons or len(reasons) < MOST_REASONS else "other reasons"] += 1
        if len(listed) < MOST_LINES:
            listed.append(f"{text_of(line.get('where') or line.get('id'))}: {reason}")
    if reasons:
        common = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(3))
        more = ", ..." if len(reasons) > 3 else ""
        total = reasons.total()
        rest = [f"... and {total - len(listed):,} more in {path.name}"] if total > len(listed) else []
        yield Note(f"Skipped {_many(total, 'sample')}: {common}{more}", tuple(listed + rest))


def _remarks(scores: dict[str, Any], about: str = "") -> Iterator[Note]:
    """What the scores' own notes say: captions that are all alike, that loop, that have no words."""
    found = scores.get("notes")
    for note in found if isinstance(found, list) else ():
        yield Note(about + text_of(note))


def _notes(metrics: Metrics, problems: Problems) -> Iterator[Note]:
    if not metrics.train and not metrics.validation:
        yield Note("metrics.jsonl holds no steps yet: there are no curves to draw.")
    broken = gaps(metrics)
    if broken:
        where = _many(len(broken), "step")
        yield Note(f"The loss was not a finite number at {where}: gaps in the curve.", tuple(broken[:MOST_LINES]))
    if problems.count:
        yield Note(f"Unreadable and left out: {_many(problems.count, 'line')}.", tuple(problems.first))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
