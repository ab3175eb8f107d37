"""How a run and a check are shown in a notebook: small pieces of HTML that ask nothing of the network.

Captions, ids and file names are untrusted: the templates escape everything, and there is no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from captrain.report.curves import Chart, draw_curve
from captrain.report.run import report_data

MOST_CHARTS = 4
MOST_PICTURES = 6
COLOURS = "--series-1:#2f7ed8;--series-2:#e8853a;--best:#3a9d5d;--muted:#888;--rule:rgba(128,128,128,.3);--card:#fff"
"""Of curves; they stand out on light pages and on dark ones."""

RUN = """
<div style="{{ colours }};font-family:sans-serif;font-size:13px;max-width:64em">
<p><b>{{ data.title }}</b> <span style="color:#888">{{ path }}</span></p>
<p>{% for line in data.headlines %}
<span style="display:inline-block;margin-right:2em"><b style="font-size:20px">{{ line.value }}</b> {{ line.label }}
<span style="color:#888">{{ line.remark }}</span></span>{% endfor %}</p>
<div style="display:flex;flex-wrap:wrap;gap:12px">{% for chart in charts %}
<figure style="margin:0;width:20em"><figcaption>{{ chart.title }}
<span style="color:#888">{{ chart.remark }}</span>{% if chart.lines|length > 1 %}<br>{% for line in chart.lines[:2] %}
<span style="color:var(--series-{{ loop.index }})">{{ line.name }}</span>{% endfor %}{% endif %}</figcaption>
{{ draw(chart) }}</figure>{% endfor %}</div>
<div style="display:flex;flex-wrap:wrap;gap:12px;margin-top:12px">{% for card in cards %}
<figure style="margin:0;width:10em">
{% if card.picture %}<img src="{{ card.picture.uri }}" alt="" style="width:10em;height:8em;object-fit:contain">{% endif %}
<figcaption dir="auto">{{ card.text or "(empty)" }}</figcaption></figure>{% endfor %}</div>
{% for note in data.notes %}<p>{{ note.title }}</p>{% endfor %}
</div>
"""

CHECK = """
<div style="font-family:sans-serif;font-size:13px">
<p><b>{{ title }}</b> {{ summary }}</p>
<table style="font-size:13px">{% for name, value in facts %}<tr><th style="text-align:left">{{ name }}</th>
<td style="text-align:left">{{ value }}</td></tr>{% endfor %}</table>
{% if problems %}<table style="font-size:13px"><tr><th style="text-align:left">problem</th><th></th><th>count</th>
<th style="text-align:left">for example</th></tr>
{% for row in problems %}<tr>{% for cell in row %}<td style="text-align:left">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
</div>
"""


def run_html(run: Path) -> str:
    """A run folder's scores, curves and some captioned pictures."""
    data = report_data(run, MOST_PICTURES)
    cards: list[Any] = [card for gallery in data.galleries for card in gallery.cards]
    cards = cards or [_as_card(evolution) for evolution in data.evolutions]
    shown = {"data": data, "path": str(run), "charts": data.charts[:MOST_CHARTS], "cards": cards[:MOST_PICTURES]}
    return _render(RUN, {**shown, "colours": Markup(COLOURS), "draw": _draw})


def check_html(title: str, summary: str, facts: Any, problems: Any) -> str:
    """What a check found: facts (name, value), and problems (kind, grade, count, example)."""
    return _render(CHECK, {"title": title, "summary": summary, "facts": facts, "problems": problems})


def _as_card(evolution: Any) -> dict[str, Any]:
    """A picture with the last of its captions."""
    return {"picture": evolution.picture, "text": evolution.written[-1][1]}


def _render(template: str, values: Mapping[str, Any]) -> str:
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(values)
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _draw(chart: Chart) -> Markup:
    return Markup(draw_curve(chart, 3.9, 2.1))  # matplotlib escapes the text it writes
