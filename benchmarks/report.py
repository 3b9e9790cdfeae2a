"""Tables and plots of benchmark results: ``python benchmarks/report.py benchmarks/results/*.json``.

Prints Markdown tables, and draws one plot for each op beside the file, ``<file>-<op>.png``. A result of
`user_speed.py` gives its table and no plot. With ``--into FILE``, such as benchmarks/RESULTS.md, the tables
of each result also replace what stands between two lines of that file: ``<!-- benchmarks <name>: begin -->``
and ``<!-- benchmarks <name>: end -->``, for a result ``<name>.json``; one of `user_speed.py` has the name
``user/<name>``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comparison import DTYPE

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
    "onnxruntime": "#009E73",
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
    parser.add_argument(
        "files", nargs="+", type=Path, help="files of pytest --benchmark-json or user_speed.py"
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="Markdown file that gets the tables")
    arguments = parser.parse_args()
    from plots import plot_all  # which imports this file

    for path in arguments.files:
        result = json.loads(path.read_text(encoding="utf-8"))
        name, text = tables(path, result)
        print(f"## {name}\n\n{text}")
        if "benchmarks" in result:
            plot_all(runs_of(result), machine_line(result), path)
        if arguments.into is not None:
            replace_tables(arguments.into, name, text)


def tables(path: Path, result: dict[str, Any]) -> tuple[str, str]:
    """What a file of results is called between the lines of RESULTS.md, and its tables."""
    if "benchmarks" in result:
        return path.stem, report(result)
    from user_speed import table as table_of_a_user

    return f"user/{path.stem}", f"{table_of_a_user(result)}\n"


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
        f"{machine['cpu']} ({level_in_words(machine)})",
        f"{machine['torch_threads']} threads",
        f"torch {machine['torch']}",
        f"commit {result['commit_info']['id'][:12]}",
        f"load {machine['load_at_start']} at the start",
    ]
    return ", ".join(fact for fact in facts if fact)


def level_in_words(machine: dict[str, Any]) -> str:
    """The instruction set that was used, and how it was forced if it is not the processor's."""
    level: str = machine["cpu_level"]
    return f"{level}, forced by {machine['forced']}" if "forced" in machine else level


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


def all_columns(runs: list[Run]) -> list[str]:
    """Of any of the runs: one that was cut short, or left `torch.compile` out, has fewer."""
    found = {name for run in runs for name in columns(run)}
    return [name for name in COLOURS if name in found]


def table(runs: list[Run], roof: dict[str, Any] | None) -> str:
    """Median milliseconds ± half the distance of the quartiles, in parentheses how many times ours.

    "of the limit" is the time that the machine needs at least, over ours; "launched" the time including the
    launching of kernels, of ours and of the quickest other; "matched" names the largest error. What runs
    remark stands below.
    """
    names = all_columns(runs)
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
            if name not in formulations:
                cells.append("")
                continue
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
    return "\n\n".join([markdown(rows), *dict.fromkeys(run["remark"] for run in runs if "remark" in run)])


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


if __name__ == "__main__":
    main()
