"""The command `jaa`."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from jaa_ext.cli import demo, evaluate, models, other_tools, predict, prepare, report, train

app = typer.Typer(
    help="Joint facial action unit detection and face alignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(prepare.app, name="prepare")
for command in (
    predict.predict,
    predict.draw,
    other_tools.convert,
    other_tools.compare,
    demo.demo,
    train.train,
    evaluate.evaluate,
    evaluate.calibrate,
    train.crossval,
    train.ablate,
    report.report,
    models.export,
    models.import_weights,
    models.info,
):
    app.command()(command)


def main() -> None:
    """Run the command. A mistake in what it was given ends it with one sentence and exit code 2."""
    try:
        app(prog_name="jaa")
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if os.environ.get("JAA_TRACEBACK") == "1":
            traceback.print_exc()
        message = str(error) or "the memory is full"
        if type(error) is RuntimeError:  # torch adds pages for programmers
            message = message.splitlines()[0]
        print(f"jaa: {message}", file=sys.stderr)
        sys.exit(2)
