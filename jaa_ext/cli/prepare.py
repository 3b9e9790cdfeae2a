"""The command `jaa prepare`, which makes released data sets ready for training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from jaa_ext.cli.output import console, say_where
from jaa_ext.cli.progress import say, shown_progress

if TYPE_CHECKING:
    from jaa_ext.data import Release
    from jaa_ext.data.preparation.report import Report

app = typer.Typer(
    help="Align a released data set's faces and tabulate its labels. Interrupted, the same command goes on.",
    no_args_is_help=True,
)


Source = Annotated[Path, typer.Argument(help="Folder of the data set, as released.")]
Out = Annotated[Path, typer.Option(help="Folder for the aligned faces and their index; made if need be.")]
SIZE_HELP = "Side of the aligned faces in pixels: round(200 / 176 * the model's image size)."
Size = Annotated[int, typer.Option(min=2, help=SIZE_HELP)]
MIN_RENDERED_SIZE = 48
"""See `jaa_ext.data.generated`, which loads slowly."""
Alignment = Annotated[
    Literal["similarity", "none"],
    typer.Option(help='"similarity" turns, scales and moves each face into place; "none" keeps pictures.'),
]
Format = Annotated[Literal["parquet", "csv"], typer.Option(help="Format of the index.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes; as many as there are processors if not given.")
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the images, where it is not beside the annotations.")
]


@app.command()
def bp4d(
    source: Source, out: Out, size: Size = 200, index: Format = "parquet", workers: Workers = None
) -> None:
    """BP4D: AUCoding/AU_OCC, 2DFeatures and the images."""
    from jaa_ext.data.readers.bp4d import read_bp4d

    _prepare(read_bp4d(source), out, size, "similarity", index, workers)


@app.command()
def disfa(
    source: Source, out: Out, size: Size = 200, index: Format = "parquet", workers: Workers = None
) -> None:
    """DISFA: ActionUnit_Labels, Landmark_Points and Videos_LeftCamera."""
    from jaa_ext.data.readers.disfa import read_disfa

    _prepare(read_disfa(source), out, size, "similarity", index, workers, recipe="paper-disfa")


@app.command()
def affwild2(
    source: Source,
    out: Out,
    images: Images = None,
    align: Alignment = "none",
    size: Size = 200,
    index: Format = "parquet",
    workers: Workers = None,
) -> None:
    """Aff-Wild2 (ABAW 2021): Train_Set, Validation_Set and cropped_aligned; landmarks by dlib.

    Needs the extra `dlib-landmarks`.
    """
    from jaa_ext.data.readers.affwild2 import read_affwild2

    _prepare(read_affwild2(source, images), out, size, align, index, workers, detect=True, recipe="abaw-1")


@app.command()
def lists(
    prefixes: Annotated[
        list[Path],
        typer.Argument(
            help="What the files' names begin with, such as list/BP4D_part1, each a fold, or list/BP4D of "
            "ME-GraphAU's."
        ),
    ],
    images: Annotated[Path, typer.Option(help="Folder that the paths in the lists start from.")],
    landmarks: Annotated[
        Literal["raw", "aligned", "none"],
        typer.Option(
            help='_land.txt counts from 1 in original images ("raw") or from 0 in 200x200 ones ("aligned"); '
            '"none": dlib finds them (extra `dlib-landmarks`).'
        ),
    ],
    out: Out,
    aus: Annotated[
        str | None, typer.Option(help="AU numbers of the columns of _AUoccur.txt, such as 1,2,4.")
    ] = None,
    size: Size = 200,
    index: Format = "parquet",
    workers: Workers = None,
) -> None:
    """The JAA-Net authors' lists: PREFIX_path.txt, _land.txt and _AUoccur.txt; or ME-GraphAU's.

    Those are PREFIX_test_img_path_fold1.txt and PREFIX_test_label_fold1.txt of each fold, without landmarks;
    fold K is the test list of fold K. Folders in front of a path that name a data set (BP4D/F001/T1/2440.jpg)
    or that all lines share are no subject.
    """
    from jaa_ext.data.readers.lists import read_lists

    numbers = None if aus is None else _numbers(aus)
    release = read_lists(prefixes, images, landmarks=landmarks, aus=numbers)
    align = "none" if landmarks == "aligned" else "similarity"
    detect = landmarks == "none"
    recipe = "paper-disfa" if release.name == "DISFA" else "paper"
    _prepare(release, out, size, align, index, workers, detect=detect, recipe=recipe)


@app.command()
def csv(
    table: Annotated[
        Path, typer.Argument(help="A CSV file with the columns image, subject and AU1, AU2, ...")
    ],
    out: Out,
    images: Images = None,
    align: Alignment = "similarity",
    size: Size = 200,
    index: Format = "parquet",
    workers: Workers = None,
) -> None:
    """Your own images and labels; without landmarks dlib finds them (extra `dlib-landmarks`).

    Columns: image, a path; subject; AU1, AU2, ..., 1 present, 0 absent, empty missing. If you have them:
    AU12L, AU12R, ..., the same of the person's left and right side; AU1_intensity, AU12L_intensity, ...,
    0 to 5, each beside its labels; task, frame, fold; x_0 to x_48, y_0 to y_48, landmarks counted from 0.
    """
    from jaa_ext.data.readers.table import read_table

    _prepare(read_table(table, images=images), out, size, align, index, workers, detect=True, recipe="RECIPE")


@app.command()
def rendered(
    out: Out,
    subjects: Annotated[int, typer.Option(min=1, help="How many people.")] = 200,
    samples_per_subject: Annotated[int, typer.Option(min=1, help="Faces of each.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Other people and faces for each seed.")] = 0,
    mix: Annotated[
        Literal["natural", "bp4d", "sides"],
        typer.Option(
            help='"natural": kinds of faces as photographs hold them; "bp4d": with the rates and the '
            'co-occurrence of BP4D; "sides": as "natural", with many AUs on one side of the face.'
        ),
    ] = "natural",
    sides: Annotated[bool, typer.Option(help="Also label each side of the face, AU12L and AU12R.")] = False,
    size: Annotated[int, typer.Option(min=MIN_RENDERED_SIZE, help=SIZE_HELP)] = 200,
    index: Format = "parquet",
    workers: Workers = None,
) -> None:
    """Faces rendered in 3D, with AUs, intensities and landmarks: free for any use, nothing is read."""
    from jaa_ext.data.rendered.release import rendered_release

    release = rendered_release(
        subjects=subjects, samples_per_subject=samples_per_subject, seed=seed, size=size, mix=mix, sides=sides
    )
    _prepare(release, out, size, "none", index, workers, check=False, recipe="RECIPE" if sides else "paper")


def _prepare(
    release: Release,
    out: Path,
    size: int,
    align: str,
    index: Literal["parquet", "csv"],
    workers: int | None,
    *,
    detect: bool = False,
    check: bool = True,
    recipe: str = "paper",
) -> None:
    from jaa_ext.data import prepare
    from jaa_ext.predict.detector import FaceDetector

    dlib = partial(FaceDetector, landmarks="dlib")
    with shown_progress(console) as listener:
        report = prepare(
            release,
            out,
            size=size,
            align=align == "similarity",
            detector=dlib if detect else None,
            checker=dlib if check else None,
            table=index,
            workers=workers,
            listener=listener,
        )
    _print_report(report)
    say_where(
        {
            out / f"index.{index}": "a row for each face",
            out / "images": "the faces",
            out / "skipped.csv": "frames that are left out, and why",
        }
    )
    # The sizes of the papers' network, and of `--budget`.
    if size in (200, 73):
        budget = " --budget tiny" if size == 73 else ""
        say(console, f"Try next: jaa crossval {recipe} --data {out} --out cv{budget}")


def _print_report(report: Report) -> None:
    table = Table()
    headings = ("AU", "present %", "valid labels", *(["intensities"] if report.intensities else []))
    for heading in headings:
        table.add_column(heading, justify="right")
    for i, (au, rate, valid) in enumerate(zip(report.aus, report.occurrence, report.valid, strict=True)):
        known = [f"{report.intensities[i]:,}"] if report.intensities else []
        table.add_row(str(au), "-" if rate is None else f"{100 * rate:.1f}", f"{valid:,}", *known)
    console.print(table)
    for line in report.lines():
        say(console, line)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() and len(part) < 4 for part in parts):
        raise ValueError(f'--aus must be AU numbers with commas between, such as 1,2,4, got "{text}"')
    return tuple(map(int, parts))
