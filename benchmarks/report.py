"""Tables and plots of benchmark results: ``python benchmarks/report.py benchmarks/results/*.json``.

Prints Markdown tables, and draws one plot for each op beside the file, ``<file>-<op>.png``. With ``--readme
FILE`` the tables of each result also replace what stands between two lines of that file:
``<!-- benchmarks <name>: begin -->`` and ``<!-- benchmarks <name>: end -->``, for a result ``<name>.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from comparison import DTYPE

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

OURS = "jaa_ext"
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    OURS: "#D55E00",
    "jaa_ext, CUDA graph": "#8C3D00",
    "cell loop": "#0072B2",
    "grouped convolution": "#009E73",
    "unfold + bmm": "#CC79A7",
    "torch.compile": "#F0E442",
    "torch.compile, CUDA graph": "#A39A00",
    "ordinary convolution": "#999999",
    "eager reference": "#56B4E9",
    "nested Python loops": "#E69F00",
    "authors' arrangement, float32": "#0072B2",
    "authors' arrangement, bfloat16": "#56B4E9",
}
GROWTH = {  # colour, marker
    "region_conv2d": ("#0072B2", "o", "region_conv2d, forward+backward"),
    "inference": ("#D55E00", "s", "JAA-Net, inference"),
    "training": ("#009E73", "^", "JAA-Net, training step"),
}
AXES = {  # name, power of the number of multiplications
    "batch": ("batch (faces)", 1),
    "width": ("unit width c (channels)", 2),
    "image_size": ("image side (pixels)", 2),
}

Run = dict[str, Any]
"""What `Comparison.run` left in ``extra_info``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="files of pytest --benchmark-json")
    parser.add_argument("--readme", type=Path, help="file that gets the tables")
    arguments = parser.parse_args()
    for path in arguments.files:
        result = json.loads(path.read_text(encoding="utf-8"))
        text = report(result)
        print(f"## {path.stem}\n\n{text}")
        plot_all(runs_of(result), machine_line(result), path)
        if arguments.readme is not None:
            replace_tables(arguments.readme, path.stem, text)


def runs_of(result: dict[str, Any]) -> list[Run]:
    return [benchmark["extra_info"] for benchmark in result["benchmarks"] if benchmark["extra_info"]]


def report(result: dict[str, Any]) -> str:
    """Machine, tables and how cost grows, in Markdown, from a file of pytest --benchmark-json."""
    runs, roofs = runs_of(result), result["machine_info"].get("roofline", {})
    devices = {run["device"] for run in runs}
    parts = [
        machine_line(result),
        *(roof_line(name, roof) for name, roof in roofs.items() if name in devices),
    ]
    growth = [run for run in runs if run["op"] == "growth"]
    for title, panel in panels(run for run in runs if run["op"] != "growth").items():
        parts.append(f"**{title}**\n\n{table(panel, roofs.get(panel[0]['device']))}")
    if growth:
        parts.append(f"**How time grows** (ms)\n\n{growth_table(growth)}")
    return "\n\n".join(parts) + "\n"


def replace_tables(path: Path, name: str, text: str) -> None:
    begin, end = (f"<!-- benchmarks {name}: {word} -->" for word in ("begin", "end"))
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{path} must have the lines {begin} and {end}, in this order")
    path.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def machine_line(result: dict[str, Any]) -> str:
    """The machine and what ran on it in words, without the facts that are not known."""
    machine = result["machine_info"]
    facts = [
        machine["gpu"],
        f"driver {machine['driver']}" if "driver" in machine else "",
        f"CUDA {machine['cuda']}" if "cuda" in machine else "",
        f"{machine['cpu']} ({machine['cpu_level']})",
        f"{machine['torch_threads']} threads",
        f"torch {machine['torch']}",
        f"commit {result['commit_info']['id'][:12]}",
        f"load {machine['load_at_start']} at the start",
    ]
    return ", ".join(fact for fact in facts if fact)


def roof_line(device: str, roof: dict[str, Any]) -> str:
    peaks = [
        f"{name} {peak['gflops']} GFLOP/s ({peak['by']})" for name, peak in roof.items() if name in DTYPE
    ]
    return f"Peak of {device}: {', '.join(peaks)}, copy {roof['copy_gb_per_s']} GB/s (read and written)."


def panels(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs that belong into one table: of one op, direction, type and device."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        facts = [run["op"], run["direction"], run["dtype"], run["device"]]
        found.setdefault(", ".join(facts), []).append(run)
    return found


def columns(run: Run) -> dict[str, dict[str, Any]]:
    """Name to formulation; of those that differ only in the parenthesis, such as layouts, the quickest."""
    best: dict[str, dict[str, Any]] = {}
    for formulation in sorted(run["formulations"], key=lambda f: f["median_ms"], reverse=True):
        best[formulation["name"].partition(" (")[0]] = formulation
    return {name: best[name] for name in COLOURS if name in best}


def table(runs: list[Run], roof: dict[str, Any] | None) -> str:
    """Median milliseconds ± half the distance of the quartiles, in parentheses how many times ours.

    "of the limit" is the time that the machine needs at least, over ours; "launched" the time including the
    launching of kernels, of ours and of the quickest other; "matched" names the largest error.
    """
    names = list(columns(runs[0]))
    limits = roof is not None and "operations" in runs[0]
    launched = "launched_ms" in runs[0]["formulations"][0]
    header = ["ms (times ours)", *names, *(["ours of the limit"] if limits else [])]
    header += [*(["launched"] if launched else []), "matched"]
    rows = [header, ["---", *["---:"] * (len(header) - 2), "---"]]
    for run in runs:
        formulations = columns(run)
        ours = formulations[OURS]["median_ms"]
        cells = [run["case"]]
        for name in names:
            formulation = formulations[name]
            detail = formulation["name"].partition(" (")[2].rstrip(")")
            ratio = "" if name == OURS else f"({formulation['median_ms'] / ours:.2f}x)"
            cells.append(" ".join(part for part in (with_spread(formulation), ratio, detail) if part))
        if limits:
            cells.append(share_of_limit(run, ours, roof))
        if launched:
            mine, theirs = (min(f["launched_ms"] for f in group) for group in split_ours(run))
            cells.append(f"{significant(mine, 3)}, {significant(theirs, 3)} ({theirs / mine:.2f}x)")
        missed = [f["name"] for f in run["formulations"] if not f["matched"]]
        error = max(f["relative_error"] for f in run["formulations"])
        cells.append(f"no: {', '.join(missed)}" if missed else f"yes ({error:.0e})")
        rows.append(cells)
    return markdown(rows)


def split_ours(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Formulations of the project, and others of the same computation."""
    ours = [f for f in run["formulations"] if f["name"].startswith(OURS)]
    others = [f for f in run["formulations"] if f not in ours]
    return ours, [f for f in others if not f["name"].startswith("ordinary convolution")]


def share_of_limit(run: Run, ms: float, roof: dict[str, Any]) -> str:
    least, which = limit(run, roof)
    return f"{significant(100 * least / ms, 2)} % of {which}"


def limit(run: Run, roof: dict[str, Any]) -> tuple[float, str]:
    """The least ms by the multiply-add peak or by the copy bandwidth, whichever asks for more time."""
    arithmetic = run["operations"] / roof[run["dtype"]]["gflops"] / 1e6
    memory = run["bytes"] / roof["copy_gb_per_s"] / 1e6
    return max((arithmetic, "peak"), (memory, "bandwidth"))


def growth_table(runs: list[Run]) -> str:
    rows = [["", "ms at each size", "between the largest two: power of the size"], ["---", "---", "---:"]]
    for run in runs:
        times = growth_points(run)
        (size, ms), (larger, more) = times[-2:]
        power = math.log(more / ms) / math.log(larger / size)
        listed = ", ".join(f"{x}: {significant(y, 3)}" for x, y in times)
        rows.append([run["case"], listed, f"{power:.2f} (arithmetic {AXES[run['axis']][1]})"])
    return markdown(rows)


def growth_points(run: Run) -> list[tuple[int, float]]:
    return [(int(f["name"]), f["median_ms"]) for f in run["formulations"]]


def markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_spread(formulation: dict[str, Any]) -> str:
    low, high = formulation["quartiles_ms"]
    median = formulation["median_ms"]
    digits = max(0, 2 - exponent(median))
    return f"{median:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def significant(value: float, digits: int) -> str:
    return f"{value:.{max(0, digits - 1 - exponent(value))}f}"


def exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


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
    figure.suptitle(f"{machine}; medians and quartiles", fontsize=10)
    for axis, (title, runs) in zip(axes[:, 0], groups.items(), strict=True):
        names = list(columns(runs[0]))
        width = 0.85 / len(names)
        for k, name in enumerate(names):
            bars = [columns(run)[name] for run in runs]
            medians = [bar["median_ms"] for bar in bars]
            below = [bar["median_ms"] - bar["quartiles_ms"][0] for bar in bars]
            above = [bar["quartiles_ms"][1] - bar["median_ms"] for bar in bars]
            axis.bar(
                [i + (k - (len(names) - 1) / 2) * width for i in range(len(runs))],
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
    figure.suptitle(f"{machine}; medians and quartiles; dotted: growth of the arithmetic", fontsize=10)
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


if __name__ == "__main__":
    main()
