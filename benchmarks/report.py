"""Tables and plots of benchmark results: ``python benchmarks/report.py benchmarks/results/*.json``.

Prints Markdown tables and writes a bar plot beside each file, with the ending .png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS = "jaa_ext"
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    OURS: "#D55E00",
    "jaa_ext, channels last": "#000000",
    "cell loop": "#0072B2",
    "grouped convolution": "#009E73",
    "unfold + bmm": "#CC79A7",
    "torch.compile": "#F0E442",
    "ordinary convolution": "#999999",
    "eager reference": "#56B4E9",
    "nested Python loops": "#E69F00",
}

Run = dict[str, Any]
"""What `Comparison.run` left in ``extra_info``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="files of pytest --benchmark-json")
    for path in parser.parse_args().files:
        result = json.loads(path.read_text(encoding="utf-8"))
        runs = [benchmark["extra_info"] for benchmark in result["benchmarks"]]
        print(f"## {path.stem}\n\n{machine_line(result['machine_info'])}\n")
        for title, panel in panels(runs).items():
            print(f"### {title}\n\n{table(panel)}\n")
        plot(panels(runs), machine_line(result["machine_info"]), path.with_suffix(".png"))


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in words, without the facts that it lacks."""
    facts = [
        machine["gpu"],
        f"{machine['cpu']} ({machine['cpu_level']})",
        f"{machine['torch_threads']} threads",
        f"torch {machine['torch']}",
        f"load {machine['load_at_start']} at the start",
    ]
    return ", ".join(fact for fact in facts if fact)


def panels(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs that belong into one table: of one op, direction and device."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(f"{run['op']}, {run['direction']}, {run['device']}", []).append(run)
    return found


def columns(run: Run) -> dict[str, dict[str, Any]]:
    """Name to formulation; of those that differ only in the parenthesis, such as layouts, the quickest."""
    best: dict[str, dict[str, Any]] = {}
    for formulation in sorted(run["formulations"], key=lambda f: f["median_ms"], reverse=True):
        best[formulation["name"].partition(" (")[0]] = formulation
    return {name: best[name] for name in COLOURS if name in best}


def table(runs: list[Run]) -> str:
    """Median milliseconds, in parentheses how many times ours; "matched" names the largest relative error."""
    names = list(columns(runs[0]))
    rates = "operations" in runs[0]
    header = ["ms (times ours)", *names, *(["ours, GFLOP/s", "ours, GB/s"] if rates else []), "matched"]
    rows = [header, ["---", *["---:"] * (len(header) - 2), "---"]]
    for run in runs:
        formulations = columns(run)
        ours = formulations[OURS]["median_ms"]
        cells = [run["case"], milliseconds(ours)]
        for name in names[1:]:
            peer = formulations[name]
            detail = peer["name"].partition(" (")[2].rstrip(")")
            ratio = f"{milliseconds(peer['median_ms'])} ({peer['median_ms'] / ours:.2f}x)"
            cells.append(f"{ratio} {detail}".strip())
        if rates:
            cells += [f"{run['operations'] / ours / 1e6:.0f}", f"{run['bytes'] / ours / 1e6:.1f}"]
        missed = [f["name"] for f in run["formulations"] if not f["matched"]]
        error = max(f["max_relative_error"] for f in run["formulations"])
        cells.append(f"no: {', '.join(missed)}" if missed else f"yes ({error:.0e})")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def milliseconds(value: float) -> str:
    """Three digits."""
    return f"{value:.{max(0, 2 - exponent(value))}f}"


def exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def plot(groups: dict[str, list[Run]], machine: str, path: Path) -> None:
    """A panel for each table; bars are medians, lines the quartiles."""
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(11, 3.2 * len(groups)), squeeze=False, layout="constrained"
    )
    figure.suptitle(machine)
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
        axis.set_yscale("log")
        axis.set_ylabel("time (ms)")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
