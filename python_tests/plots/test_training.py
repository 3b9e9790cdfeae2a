"""The course of a training: that what is to be seen is there."""

import pytest
from matplotlib.figure import Figure

from jaa_ext.plots.training import training_figure
from jaa_ext.predict import read_image

NOTE = "Demonstration weights, trained on drawn faces: not for real use."


def history():
    return [
        {
            "epoch": epoch,
            "stage": "joint" if epoch < 4 else "alignment",
            "losses": {"total": 2.0 / epoch, "align": 0.0 if epoch == 2 else 1.0 / epoch},
            "scores": {
                "f1_mean": 0.1 * epoch,
                "accuracy_mean": 0.7,
                "mean_error": 9.0,
                "failure_rate": None,
            },
        }
        for epoch in range(1, 6)
    ]


def curves(figure: Figure) -> list[dict[str, list[tuple[float, float]]]]:
    """The points of each panel's lines, by their names in the legend."""
    return [
        {
            line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
            for line in axes.lines
            if not str(line.get_label()).startswith("_")
        }
        for axes in figure.axes
    ]


def test_all_panels_have_lines(figures, texts, tmp_path):
    training_figure(history(), tmp_path / "made" / "training.png")
    losses, scores, errors = curves(figures[0])
    assert losses["total"] == [(epoch, 2.0 / epoch) for epoch in range(1, 6)]
    assert scores == {
        "F1, mean over AUs": [(epoch, 0.1 * epoch) for epoch in range(1, 6)],
        "accuracy, mean over AUs": [(epoch, 0.7) for epoch in range(1, 6)],
    }
    (error,) = errors.values()  # no failure rate, no line
    assert error == [(epoch, 9.0) for epoch in range(1, 6)]
    assert figures[0].axes[0].get_yscale() == "log"
    for axes in figures[0].axes:
        assert [text.get_text().strip() for text in axes.texts] == ["joint", "alignment"]
        assert [text.xy[0] for text in axes.texts] == [0.5, 3.5]
        assert axes.get_legend() is not None


def test_a_loss_of_zero_is_left_out_of_the_log_scale(figures, tmp_path):
    training_figure(history(), tmp_path / "a.png")
    losses = curves(figures[0])[0]
    assert losses["align"] == [(epoch, 1.0 / epoch) for epoch in (1, 3, 4, 5)]


def test_the_note_is_at_the_foot(figures, tmp_path):
    training_figure(history(), tmp_path / "a.png", NOTE)
    (text,) = figures[0].texts
    assert text.get_text() == NOTE and text.get_position()[1] < 0.05


@pytest.mark.filterwarnings("error")
def test_odd_histories(tmp_path):
    path = tmp_path / "a.png"
    training_figure([{"epoch": 1, "losses": {"total": 1.0}}], path)
    training_figure([{"epoch": 1, "losses": {}, "scores": None}], path)
    training_figure([{"epoch": 3, "losses": {"total": float("nan")}, "scores": {}}], path)
    restarted = [{"epoch": e, "stage": s, "losses": {"total": 1.0}} for s in "ab" for e in (1, 2)]
    training_figure(restarted, path)
    assert read_image(path).any()


def test_an_empty_history(tmp_path):
    with pytest.raises(ValueError, match="empty history"):
        training_figure([], tmp_path / "a.png")
