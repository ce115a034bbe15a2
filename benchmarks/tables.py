"""What a run found, as a table, and as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from suite import Key, Results, unit

PEERS = ("cpprb", "reverb")


def order(results: Results) -> list[Key]:
    """The machine's limits first, then by workload and figure as they were measured."""
    places = {pair: number for number, pair in enumerate(dict.fromkeys(key[2:] for key in sorted(results.values, key=lambda k: k[2])))}
    return sorted(results.values, key=lambda key: (key[2] != "machine", key[2], places[key[2:]]))


def show(results: Results, console: Console) -> None:
    """One table, and below it what is missing."""
    machine = results.machine
    title = f"medians of {results.options['rounds']} rounds; {machine['cpus']} CPUs, load {machine['load_before']:.1f}"
    table = Table(title=title, title_justify="left")
    for name in ("", "figure", "who", "how"):
        table.add_column(name, no_wrap=True)
    for name in ("median", "least", "most", "", "of memcpy", *(f"÷ {peer}" for peer in PEERS)):
        table.add_column(name, justify="left" if not name else "right")
    last: tuple[str, str] | None = None
    for key in order(results):
        name, way, workload, figure = key
        if last and last != (workload, figure) and not last[0] == workload == "machine":
            table.add_section()
        again = last == (workload, figure)
        last = workload, figure
        values = results.values[key]
        memcpy = results.ratio_to_memcpy(key)
        table.add_row(
            "" if again else workload,
            "" if again else figure,
            name,
            way,
            *(_number(value) for value in (statistics.median(values), min(values), max(values))),
            unit(figure),
            "" if memcpy is None else f"{memcpy:.1%}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in (results.ratio_to(peer, key) for peer in PEERS)),
        )
    console.print(table)
    for name, reason in results.missing.items():
        console.print(f"{name}: {reason}", markup=False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def draw(results: Results, path: Path) -> None:
    """Bars per workload and figure, as a PNG.

    Raises:
        ImportError: matplotlib is not there.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    groups: dict[tuple[str, str], list[Key]] = {}
    for key in order(results):
        if key[2] != "machine":
            groups.setdefault(key[2:], []).append(key)
    columns = 3
    figure, axes = plt.subplots(-(-len(groups) // columns), columns, figsize=(18, 2.8 * -(-len(groups) // columns)), squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.axis("off")
    for axis, ((workload, what), keys) in zip(axes.flat, groups.items(), strict=False):
        medians = [statistics.median(results.values[key]) for key in keys]
        below = [median - min(results.values[key]) for median, key in zip(medians, keys, strict=True)]
        above = [max(results.values[key]) - median for median, key in zip(medians, keys, strict=True)]
        colours = ["tab:blue" if key[0].startswith("replaystore") else "tab:gray" for key in keys]
        axis.barh([f"{key[0].split()[0]}, {key[1]}" for key in keys], medians, xerr=[below, above], color=colours, ecolor="black")
        axis.invert_yaxis()
        axis.set_title(f"{workload}: {what} [{unit(what)}]", fontsize=10)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
