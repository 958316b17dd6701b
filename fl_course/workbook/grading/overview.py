"""The teacher's page of a class: what was solved, which mistakes were made how often, what to talk about, and a histogram.

One file without scripts that opens offline, on light and dark screens. Of persons it says what the teacher handed in: names of
files, and of the class list.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from . import checks
from .gradebook import Grade, mistakes, percent

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --page: #ffffff; --line: #c8c8c8; --bar: #0072b2; --soft: #5a5a5a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --page: #161616; --line: #4a4a4a; --bar: #56b4e9; --soft: #b0b0b0; }
}
body { font-family: sans-serif; max-width: 60em; margin: 1em auto; padding: 0 1em; color: var(--ink); background: var(--page); }
table { border-collapse: collapse; width: 100%; } a { color: var(--bar); }
th, td { text-align: left; padding: .2em .6em; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; } small, .soft { color: var(--soft); }
svg text { fill: var(--ink); font: 12px sans-serif; } svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
"""


def overview(
    grades: Sequence[Grade], chapter: str, weights: Mapping[str, float], names: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None, instead: Mapping[str, str] | None = None, missing: Sequence[str] = (),
    fence: str = "",
) -> str:
    """The page. `names` and `notes` belong to files; files in `instead` do not count; `missing` handed in nothing."""
    names, notes, instead = names or {}, notes or {}, instead or {}
    ran = [one for one in grades if one.fence and not instead.get(one.file)]
    parts = [f"<p>Graded {datetime.date.today().isoformat()}. {len(grades)} files, {len(ran)} of them ran and count below.</p>"]
    if missing:
        parts.append(f"<p>Nothing came from {len(missing)}: {escape(', '.join(missing))}.</p>")
    if ran:
        parts += ["<h2>Marks</h2>", histogram([percent(one, weights) for one in ran])]
        parts += ["<h2>Exercises</h2>", _exercises(ran, chapter, weights), "<h2>Worth a word in class</h2>", _words(ran, chapter)]
        parts += ["<h2>Mistakes</h2>", _mistakes(ran)]
    parts += ["<h2>Files</h2>", _files(grades, weights, names, notes)]
    parts += [f"<p><small>The fence: {escape(fence)}.</small></p>"] if fence else []
    title = f"Chapter {escape(chapter)}: the class"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>{title}</title><style>{STYLE}</style>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{"".join(parts)}</body></html>\n'


def histogram(marks: Sequence[float]) -> str:
    """How many have how many per cent, in ten steps, as a picture in SVG; 100 % is in the last one."""
    counts = [0] * 10
    for mark in marks:
        counts[min(9, max(0, int(mark // 10)))] += 1
    top, bars = max([*counts, 1]), []
    for i, count in enumerate(counts):
        height, x = 120 * count / top, 30 + 48 * i
        bars.append(f'<rect x="{x + 2}" y="{150 - height:.1f}" width="44" height="{height:.1f}"/>')
        bars.append(f'<text x="{x + 24}" y="{144 - height:.1f}" text-anchor="middle">{count or ""}</text>')
        bars.append(f'<text x="{x}" y="168" text-anchor="middle">{10 * i}</text>')
    bars.append('<text x="510" y="168" text-anchor="middle">100 %</text><line x1="30" y1="150" x2="510" y2="150"/>')
    said = ", ".join(f"{10 * i} to {10 * i + 10} %: {count}" for i, count in enumerate(counts) if count)
    mean = sum(marks) / len(marks) if marks else 0.0
    size = 'viewBox="0 0 540 180" width="540" style="max-width:100%"'
    picture = f'<svg role="img" aria-label="{said}" {size}>{"".join(bars)}</svg>'
    return f"<p>{picture}</p><p>On average {mean:.0f} %; {said}.</p>"


def need(grades: Sequence[Grade], chapter: str) -> list[str]:
    """The names of the three exercises that fewest have solved; of equals the one that more have tried. None that all solved."""
    counts = {item.name: _count(grades, item.name) for item in checks.chapter(chapter)}
    open_ = [name for name in counts if counts[name]["pass"] < len(grades)]
    return sorted(open_, key=lambda name: (counts[name]["pass"], -counts[name]["fail"], name))[:3]


def _count(grades: Sequence[Grade], name: str) -> dict[str, int]:
    states = [one.exercises.get(name, {}).get("state", "todo") for one in grades]
    return {state: states.count(state) for state in ("pass", "fail", "todo")}


def _exercises(grades: Sequence[Grade], chapter: str, weights: Mapping[str, float]) -> str:
    rows = []
    for item in checks.chapter(chapter):
        count = _count(grades, item.name)
        share = count["pass"] / len(grades)
        bar = f'<svg aria-hidden="true" width="100" height="10"><rect width="{100 * share:.0f}" height="10"/></svg>'
        rows.append([f"<code>{escape(item.name)}</code> {escape(item.title)}", f"{weights.get(item.name, 1):g}", count["pass"],
                     count["fail"], count["todo"], f"{bar} {share:.0%}"])  # fmt: skip
    return _table(["exercise", "weight", "solved", "wrong", "not answered", "solved"], rows, {1, 2, 3, 4})


def _words(grades: Sequence[Grade], chapter: str) -> str:
    rows, wrong = [], mistakes(grades)
    for name in need(grades, chapter):
        item = checks.find(name)
        common = next((f"{escape(hint)} ({n})" for one, hint, n in wrong if one == name), "hardly anybody tried")
        solved = f"{_count(grades, name)['pass']} of {len(grades)} solved it"
        rows.append(f"<li><code>{escape(name)}</code> {escape(item.title)}: {solved}. Commonest: {common}</li>")
    return f"<ol>{''.join(rows)}</ol>" if rows else "<p>Everybody solved everything.</p>"


def _mistakes(grades: Sequence[Grade]) -> str:
    rows = [[f"<code>{escape(name)}</code>", escape(hint), count] for name, hint, count in mistakes(grades)]
    return _table(["exercise", "the hint that the mistake gets", "students"], rows, {2}) if rows else "<p>None.</p>"


def _files(grades: Sequence[Grade], weights: Mapping[str, float], names: Mapping[str, str], notes: Mapping[str, str]) -> str:
    rows = []
    for one in sorted(grades, key=lambda grade: grade.file):
        link = f'<a href="feedback/{quote(one.page)}">{escape(one.file)}</a>'
        said = "; ".join(filter(None, [notes.get(one.file, ""), one.problem]))
        rows.append([link, escape(names.get(one.file, "")), one.solved, f"{percent(one, weights):g} %", escape(said)])
    return _table(["file", "name", "solved", "mark", "note"], rows, {2, 3})


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]], numbers: set[int]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        kinds = (f'<{tag} class="n">' if i in numbers else f"<{tag}>" for i in range(len(cells)))
        return "<tr>" + "".join(f"{kind}{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"

    return f"<table>{line(titles, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
