"""Plots of benchmark results, drawn by report.py."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from report import AXES, COLOURS, Run, all_columns, columns, growth_points, panels

GROWTH = {  # colour, marker
    "region_conv2d": ("#0072B2", "o", "region_conv2d, forward+backward"),
    "inference": ("#D55E00", "s", "JAA-Net, inference"),
    "training": ("#009E73", "^", "JAA-Net, training step"),
}


def plot_all(runs: list[Run], machine: str, path: Path) -> None:
    by_op: dict[str, list[Run]] = {}
    for run in runs:
        by_op.setdefault(run["op"], []).append(run)
    for op, op_runs in by_op.items():
        target = path.with_name(f"{path.stem}-{op.replace(' ', '_')}.png")
        if op == "growth":
            plot_growth(op_runs, machine, target)
        else:
            plot_bars(panels(op_runs), machine, target)


def plot_bars(groups: dict[str, list[Run]], machine: str, path: Path) -> None:
    """A panel for each table; bars are medians, lines the quartiles."""
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(11, 3.2 * len(groups) + 0.4), squeeze=False, layout="constrained"
    )
    figure.suptitle(textwrap.fill(f"{machine}; medians and quartiles", 130), fontsize=10)
    for axis, (title, runs) in zip(axes[:, 0], groups.items(), strict=True):
        names = all_columns(runs)
        width = 0.85 / len(names)
        for k, name in enumerate(names):
            there = [i for i, run in enumerate(runs) if name in columns(run)]
            bars = [columns(runs[i])[name] for i in there]
            medians = [bar["median_ms"] for bar in bars]
            below = [bar["median_ms"] - bar["quartiles_ms"][0] for bar in bars]
            above = [bar["quartiles_ms"][1] - bar["median_ms"] for bar in bars]
            axis.bar(
                [i + (k - (len(names) - 1) / 2) * width for i in there],
                medians,
                width,
                yerr=[below, above],
                label=name,
                color=COLOURS[name],
                edgecolor="black",
                linewidth=0.5,
                error_kw={"linewidth": 1},
            )
        axis.set_title(title, loc="left")
        axis.set_xticks(range(len(runs)), [run["case"].replace(", ", "\n", 1) for run in runs])
        axis.set_xlim(-0.5, max(len(runs), 3) - 0.5)  # few cases do not make wide bars
        times = [f["median_ms"] for run in runs for f in columns(run).values()]
        if max(times) > 10 * min(times):
            axis.set_yscale("log")
        axis.set_ylabel("time (ms)")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_growth(runs: list[Run], machine: str, path: Path) -> None:
    """Time against batch, width and image size; dotted is growth as that of the arithmetic."""
    varied = [axis for axis in AXES if any(run["axis"] == axis for run in runs)]
    figure, axes = plt.subplots(
        1, len(varied), figsize=(4.2 * len(varied) + 1, 4.8), squeeze=False, sharey=True, layout="constrained"
    )
    title = f"{machine}; medians and quartiles; dotted: growth of the arithmetic"
    figure.suptitle(textwrap.fill(title, 130), fontsize=10)
    for panel, name in zip(axes[0], varied, strict=True):
        for run in runs:
            if run["axis"] == name:
                plot_growth_line(panel, run)
        label, power = AXES[name]
        panel.set_xlabel(label)
        panel.set_title(f"dotted: size to the power of {power}" if power > 1 else "dotted: in proportion")
        panel.set_xscale("log")
        panel.set_yscale("log")
        sizes = sorted({size for run in runs if run["axis"] == name for size, _ in growth_points(run)})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
    axes[0][0].set_ylabel("time (ms)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_growth_line(panel: Axes, run: Run) -> None:
    colour, marker, label = GROWTH[run["direction"]]
    power = AXES[run["axis"]][1]
    sizes, medians = zip(*growth_points(run), strict=True)
    spread = [
        [f["median_ms"] - f["quartiles_ms"][0] for f in run["formulations"]],
        [f["quartiles_ms"][1] - f["median_ms"] for f in run["formulations"]],
    ]
    panel.errorbar(sizes, medians, yerr=spread, color=colour, marker=marker, markersize=5, label=label)
    middle = len(sizes) // 2
    dotted = [medians[middle] * (size / sizes[middle]) ** power for size in sizes]
    panel.plot(sizes, dotted, color=colour, linestyle=":", linewidth=1.2)
