"""docs/RESULTS.md and what it shows: one line of CSV for each run, a plot for each row. The page is made of the CSV alone."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.rows import ROWS, Row, Variant, folder_of
from benchmarks.learning.run import command, curve, source_of

FIELDS = (
    "row", "variant", "seed", "best", "best_std", "last", "last_std", "reached", "steps", "updates", "to_target", "wall_s", "chance",
    "behaviour", "same_as_again",
)  # fmt: skip

TOP = """# Results

What the agents of `replaystore-agents` reach, beside what others publish. Every run learned from a replaystore: actor and learner in turn
in one process (`replaystore-agents solo`), or offline from the store that such a run left. One command makes a row, from nothing:

```console
$ python -m benchmarks.learning cartpole
$ make results
```

The others are {names}. `make results` makes all of them, keeps runs that are there already, and writes this page.

Figures are mean returns of greedy episodes that training has not seen ({episodes} for each run unless said otherwise, all but a few
the same ones for all seeds): **best** of the weights that evaluations during training chose, **last** of those that the run ended with.
Given is the mean over seeds ± their standard deviation, and the worst and the best seed. *Chance* is what random actions return. Plots
show the evaluations during training, with 95 % bootstrap bands over seeds. {machine} Each run is a line of
[results/runs.csv](results/runs.csv).
"""


def collect(results: Path) -> list[dict[str, str]]:
    """One line for each run that is there."""
    lines = []
    for row in ROWS:
        for variant in row.variants:
            for seed in variant.seeds:
                folder = folder_of(results, row, variant, seed)
                if (folder / "evaluation.json").exists():
                    lines.append(_line(results, row, variant, seed))
    return [{name: _text(line.get(name)) for name in FIELDS} for line in lines]


def _line(results: Path, row: Row, variant: Variant, seed: int) -> dict[str, Any]:
    folder = folder_of(results, row, variant, seed)
    judged, result = (json.loads((folder / name).read_text()) for name in ("evaluation.json", "result.json"))
    axis = "update" if variant.data else "inserted_steps"
    reached = [line[axis] for line in curve(folder) if row.target is not None and line["return_mean"] >= row.target]
    source = folder_of(results, *source_of(variant), 0) / "evaluation.json" if variant.data else folder / "evaluation.json"
    origin = json.loads(source.read_text())
    return {
        "row": row.name, "variant": variant.name, "seed": seed, "best": judged["best"]["mean"], "best_std": judged["best"]["std"],
        "last": judged["last"]["mean"], "last_std": judged["last"]["std"], "reached": judged["best"].get("reached"),
        "steps": result["steps" if variant.data else "inserted_steps"], "updates": result["updates"],
        "to_target": reached[0] if reached else None, "wall_s": judged["wall_s"], "chance": origin["chance"],
        "behaviour": origin["behaviour"]["mean"], "same_as_again": judged.get("same_as_again"),
    }  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def to_csv(lines: Iterable[dict[str, str]]) -> str:
    """With a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def read_csv(text: str) -> list[dict[str, str]]:
    """The inverse of `to_csv`."""
    return list(csv.DictReader(io.StringIO(text)))


def render(lines: list[dict[str, str]], machine: str) -> str:
    """The page."""
    there = {line["row"] for line in lines}
    names = ", ".join(f"`{row.name}`" for row in ROWS if row.name != "cartpole")
    parts = [TOP.format(names=names, episodes=ROWS[0].episodes, machine=machine), _overview(lines)]
    for row in ROWS:
        if row.name in there:
            parts.append(_section(row, [line for line in lines if line["row"] == row.name], lines))
    if missing := [f"{row.title} (`{row.name}`: {row.asked})" for row in ROWS if row.name not in there]:
        parts.append(f"## Not run yet\n\nTheir commands are there, their hours were not: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _overview(lines: list[dict[str, str]]) -> str:
    table = ["| | asked | best weights | last weights | published |", "|---|---|---|---|---|"]
    for row in ROWS:
        for number, variant in enumerate(row.variants):
            mine = [line for line in lines if line["row"] == row.name and line["variant"] == variant.name]
            if mine:
                title = f"[{row.title}](#{_anchor(row.title)}): {variant.name}"
                shown = [_spread(mine, "best"), _spread(mine, "last")]
                table.append(
                    f"| {title} | {row.asked if not number else ''} | {shown[0]} | {shown[1]} | {row.published if not number else ''} |"
                )
    return "\n".join(table) + "\n"


def _section(row: Row, mine: list[dict[str, str]], lines: list[dict[str, str]]) -> str:
    offline = bool(row.variants[0].data)
    unit = "updates" if offline else "steps"
    head = ["", "seeds", "best", "last", *(["reached the goal"] if row.goals else []), unit]
    head += [f"{unit} to {row.target:g}"] if row.target is not None else []
    head += ["of the behaviour's return", "of the best online return"] if offline else []
    head.append("seconds")
    table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for variant in row.variants:
        runs = [line for line in mine if line["variant"] == variant.name]
        if not runs:
            continue
        cells = [variant.name, str(len(runs)), _spread(runs, "best"), _spread(runs, "last")]
        if row.goals:
            cells.append(f"{100 * _numbers(runs, 'reached').mean():.0f} %")
        cells.append(f"{int(_numbers(runs, 'updates' if offline else 'steps').mean()):,}".replace(",", " "))
        if row.target is not None:
            to = _numbers(runs, "to_target")
            cells.append(f"{int(np.median(to)):,} ({len(to)} of {len(runs)})".replace(",", " ") if len(to) else f"none of {len(runs)}")
        if offline:
            cells += _fractions(variant, runs, lines)
        cells.append(f"{_numbers(runs, 'wall_s').mean():.0f}")
        table.append("| " + " | ".join(cells) + " |")
    chance = f"Chance: {_numbers(mine, 'chance')[0]:.4g}."
    again = [line for line in mine if line["same_as_again"]]
    if again:
        chance += f" {again[0]['variant']}, seed {again[0]['seed']}, trained again: the curves are {again[0]['same_as_again']}."
    if row.episodes != ROWS[0].episodes:
        chance += f" {row.episodes} episodes in the final evaluation."
    commands = "\n".join(f"$ replaystore-agents {shlex.join(command(Path('results'), row, v, 0))}" for v in row.variants)
    text = f"Asked: {row.asked}. Published: {row.published}."
    parts = [
        f"## {row.title}", text, "\n".join(table), chance, f"![{row.title}](results/{row.name}.png)",
        f"```console\n$ python -m benchmarks.learning {row.name}\n```", "<details><summary>its runs of seed 0</summary>",
        f"```console\n{commands}\n```", "</details>",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _fractions(variant: Variant, runs: list[dict[str, str]], lines: list[dict[str, str]]) -> list[str]:
    """Of the way from chance to the behaviour's mean return, and to the return of the best weights learned online."""
    row, source = source_of(variant)
    online = [line for line in lines if line["row"] == row.name and line["variant"] == source.name and line["seed"] == "0"]
    best, chance = _numbers(runs, "best").mean(), _numbers(runs, "chance")[0]
    behaviour = _numbers(runs, "behaviour")[0]
    found = [f"{(best - chance) / (behaviour - chance):.2f}"]
    return [*found, f"{(best - chance) / (_numbers(online, 'best')[0] - chance):.2f}" if online else "unknown"]


def _numbers(lines: list[dict[str, str]], name: str) -> Any:
    return np.array([float(line[name]) for line in lines if line[name]])


def _spread(lines: list[dict[str, str]], name: str) -> str:
    values = _numbers(lines, name)
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"**{values.mean():.1f}** ± {values.std(ddof=1):.1f} ({values.min():.1f} … {values.max():.1f})"


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def plots(results: Path, rows: Iterable[Row], out: Path) -> None:
    """A picture for each row that has runs."""
    from replaystore_agents.reports.report import write_report

    for row in rows:
        folders = [results / row.name / folder_of(results, row, variant, 0).parent.name for variant in row.variants]
        if there := [folder for folder in folders if any(folder.glob("*/evaluation.json"))]:
            made = write_report(there, results / row.name / "report", row.target, row.title)
            shutil.copyfile(made.plots[0], out / f"{row.name}.png")


def write(results: Path, docs: Path, machine: str) -> None:
    """RESULTS.md, results/runs.csv, results/machine.txt and the pictures, in the folder `docs`."""
    out = docs / "results"
    out.mkdir(parents=True, exist_ok=True)
    lines = collect(results)
    (out / "runs.csv").write_text(to_csv(lines))
    (out / "machine.txt").write_text(machine + "\n")
    plots(results, ROWS, out)
    (docs / "RESULTS.md").write_text(render(lines, machine))
