"""The figure of one recorded step: what is drawn where."""

import numpy as np
import pytest
from report_factory import report_settings

from eval.report.collect import ReportError, recorded_step
from eval.report.trajectory import trajectory

# A bowl around (3, 0); GRPO goes to (1, 1), SFPO on to (4, 2), back half of the way to (2, 1), and to (3, 0).
GRPO = [("start", 0, 0), ("pass", 1, 1)]
SFPO = [*GRPO, ("pass", 4, 2), ("reposition", 2, 1), ("pass", 3, 0)]
AXIS = np.linspace(-2, 6, 9)


def places(path):
    return [{"move": move, "x": x, "y": y, "loss": (x - 3) ** 2 + y**2 + 0.5} for move, x, y in path]


STEP = {
    "trained_steps": 60,
    "lead_in_steps": 10,
    "share_in_plane": 0.874,
    "arms": {"grpo": places(GRPO), "sfpo": places(SFPO)},
    "grid": {"x": list(AXIS), "y": list(AXIS), "loss": [[(x - 3) ** 2 + y**2 for x in AXIS] for y in AXIS]},
}


@pytest.fixture(scope="module")
def drawn():
    settings = report_settings().model_copy(update={"item": "figure1", "shows": "trajectory"})
    return trajectory({("tiny-qwen2", "arithmetic"): STEP}, settings)


def test_paths_stars_and_the_reposition_are_where_they_should_be(drawn):
    figure, _ = drawn
    axes = figure.axes[0]
    assert axes.get_title() == "tiny-qwen2, step 71: 87.4% of the movement lies in this plane"
    ends = {tuple(line.get_xydata()[0]): line.get_color() for line in axes.lines if line.get_marker() == "*"}
    colors = {line.get_label(): line.get_color() for line in figure.legends[0].get_lines()}
    assert ends == {(1, 1): colors["GRPO"], (3, 0): colors["SFPO"]}
    dashed = [line for line in axes.lines if line.is_dashed()]
    assert [line.get_xydata().tolist() for line in dashed] == [[[4, 2], [2, 1]]]
    passes = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(passes) == 1 + 3 and {line.get_linewidth() for line in passes if line.get_color() == colors["GRPO"]} == {1.5}


def test_the_colours_are_the_loss(drawn):
    figure, _ = drawn
    filled = figure.axes[0].collections[0]
    assert filled.levels[0] == pytest.approx(0, abs=0.01) and filled.levels[-1] == pytest.approx(25 + 36)
    assert figure.axes[1].get_ylabel() == "Loss of the batch"


def test_a_batch_without_advantages_has_no_contours():
    flat = {**STEP, "grid": {**STEP["grid"], "loss": [[0.0] * 9] * 9}}
    settings = report_settings().model_copy(update={"item": "figure1", "shows": "trajectory"})
    figure, _ = trajectory({("tiny-qwen2", "arithmetic"): flat}, settings)
    assert len(figure.axes) == 1 and not figure.axes[0].collections


def test_the_data_beside_the_picture(drawn):
    _, data = drawn
    path = data[(data["series"] == "path") & (data["arm"] == "sfpo")]
    assert path["move"].tolist() == ["start", "pass", "pass", "reposition", "pass"] and path["point"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert path["loss"].tolist() == [9.5, 5.5, 5.5, 2.5, 0.5]
    assert len(data[data["series"] == "loss"]) == 81


def test_a_missing_or_other_file_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"results\.json: no such file"):
        recorded_step(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ReportError, match="is not a recorded step"):
        recorded_step(tmp_path)
