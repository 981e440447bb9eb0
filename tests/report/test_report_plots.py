"""Learning curves: the drawn artists hold the right data, and a file is whole or absent."""

import os
import struct
import sys
import zlib

import numpy as np
import pytest
import scipy.stats
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dqx import stats
from dqx.report import plots


def fake(seeds, points=20):
    rng = np.random.default_rng(seeds)
    steps = np.arange(1, points + 1) * 5_000
    middle = rng.uniform(20e3, 60e3, size=(seeds, 1))
    return steps, 500 / (1 + np.exp((middle - steps) / 1e4))


def draw(steps, values, **options):
    return plots.learning_curve_figure(steps, values, title="cartpole", **options).axes[0]


def thick(axes):
    return max(axes.lines, key=lambda line: line.get_linewidth())


def of_type(axes, kind):
    return [artist for artist in axes.collections if type(artist).__name__ == kind.__name__]


def legend(axes):
    return [text.get_text() for text in axes.figure.legends[0].get_texts()]


def pixels(path):
    """Read width, height and the raw image of a PNG file, checking every checksum in it."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        chunks.append((kind, body))
        at += 12 + length
    assert chunks[-1][0] == b"IEND"
    width, height = struct.unpack(">II", chunks[0][1][:8])
    raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    return width, height, raw


@pytest.mark.parametrize("seeds", [1, 2, 32, 500])
def test_the_file_is_a_png_with_a_picture_in_it(tmp_path, seeds):
    steps, values = fake(seeds)
    path = tmp_path / "curve.png"
    result = plots.learning_curve(steps, values, path=path, title="cartpole", threshold=475)
    assert result == path and os.listdir(tmp_path) == ["curve.png"]
    width, height, raw = pixels(path)
    assert (width, height) == (1200, 750)
    assert len(raw) == height * (1 + 4 * width)  # 8-bit RGBA, a filter byte a row
    assert len(path.read_bytes()) > 10_000  # a blank page of this size takes 3,000


def test_the_same_data_give_the_same_bytes(tmp_path):
    steps, values = fake(5)
    first = plots.learning_curve(steps, values, path=tmp_path / "a.png", title="t").read_bytes()
    again = plots.learning_curve(steps, values, path=str(tmp_path / "b.png"), title="t")
    assert again.read_bytes() == first
    other = plots.learning_curve(steps, values + 1, path=tmp_path / "a.png", title="t")
    assert other.read_bytes() != first


def test_the_thick_line_is_the_iqm_and_the_band_its_interval():
    steps, values = fake(32)
    axes = draw(steps, values, level=0.9, seed=7)
    np.testing.assert_array_equal(thick(axes).get_xdata(), steps)
    np.testing.assert_allclose(
        thick(axes).get_ydata(), scipy.stats.trim_mean(values, 0.25, axis=0), rtol=1e-12
    )
    (band,) = of_type(axes, type("FillBetweenPolyCollection", (), {}))
    assert isinstance(band, PolyCollection)
    _, low, high = stats.interval(values, level=0.9, seed=7)
    corners = {tuple(vertex) for vertex in band.get_paths()[0].vertices}
    assert corners == {*zip(steps, low, strict=True), *zip(steps, high, strict=True)}
    assert legend(axes)[0] == "IQM of 32 seeds, 90 % interval"


def test_every_seed_is_drawn_thin():
    steps, values = fake(6)
    (lines,) = of_type(draw(steps, values), LineCollection)
    assert lines.get_linewidth()[0] < 1
    for drawn, row in zip(lines.get_segments(), values, strict=True):
        np.testing.assert_array_equal(drawn, np.column_stack([steps, row]))


def test_more_seeds_are_drawn_fainter():
    alphas = [of_type(draw(*fake(s)), LineCollection)[0].get_alpha() for s in (2, 32, 500)]
    assert alphas[0] > alphas[1] > alphas[2] > 0.05


def test_one_seed_has_a_line_and_no_band():
    steps, values = fake(1)
    axes = draw(steps, values)
    assert len(axes.lines) == 1 and len(axes.collections) == 0
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values[0])
    assert legend(axes) == ["1 seed (no interval)"]


def test_steps_without_an_evaluation_are_left_out_and_gaps_bridged():
    steps, values = fake(8)
    values[:, 1::2] = np.nan
    values[3, 4] = np.inf
    axes = draw(steps, values)
    np.testing.assert_array_equal(thick(axes).get_xdata(), steps[::2])
    expected = scipy.stats.trim_mean(values[:, ::2], 0.25, axis=0)
    expected[2] = scipy.stats.trim_mean(np.delete(values[:, 4], 3), 0.25)
    np.testing.assert_allclose(thick(axes).get_ydata(), expected)
    segments = of_type(axes, LineCollection)[0].get_segments()
    np.testing.assert_array_equal(segments[3][:, 0], np.delete(steps[::2], 2))
    assert legend(axes)[0].startswith("IQM of 7 to 8 of 8 seeds,")
    assert not any("diverged" in label for label in legend(axes))


def crosses(axes):
    return next(line for line in axes.lines if line.get_marker() == "X").get_xydata().tolist()


def test_diverged_seeds_get_a_cross_where_they_end():
    steps, values = fake(8)
    values[2, 5:] = np.nan
    values[6] = np.nan
    axes = draw(steps, values)
    assert crosses(axes) == [[steps[4], values[2, 4]], [steps[0], np.nanmin(values)]]
    assert legend(axes)[0].startswith("IQM of 6 to 7 of 8 seeds,")
    assert legend(axes)[-1] == "2 seeds diverged"


def test_diverged_at_decides_which_seeds_are_marked():
    steps, values = fake(4)
    values[0, -1] = np.nan
    axes = draw(steps, values, diverged_at=np.array([-1, 12_000, -1, -1]))
    assert crosses(axes) == [[12_000, values[1, 1]]]
    assert legend(axes)[-1] == "1 seed diverged"


def test_axes_have_units_ticks_and_room():
    steps, values = fake(4)
    axes = draw(steps, values, threshold=600)
    axes.figure.canvas.draw()
    assert axes.get_xlabel() == "environment steps"
    assert axes.get_ylabel() == "greedy return (sum of rewards an episode)"
    labels = {text.get_text() for text in axes.get_xticklabels()}
    assert {"0", "20k", "100k"} <= labels
    low, high = axes.get_ylim()
    assert low < values.min() and high > 600
    assert "threshold 600" in legend(axes)
    dashed = [line for line in axes.lines if list(line.get_ydata()) == [600, 600]]
    assert len(dashed) == 1
    low, high = draw([1, 2], np.full((3, 2), -200.0)).get_ylim()
    assert low < -200 < high


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_single_step_is_visible(tmp_path, seeds):
    plots.learning_curve([5_000], np.ones((seeds, 1)), path=tmp_path / "a.png", title="$x_{$")
    axes = draw([5_000], np.arange(seeds, dtype=float)[:, None])
    assert thick(axes).get_marker() == "o"
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [list(line.get_ydata()) for line in dots] == ([[0, 1, 2]] if seeds == 3 else [])


def test_pyplot_is_left_alone(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.learning_curve(*fake(3), path=tmp_path / "a.png", title="t")
    assert ("matplotlib.pyplot" in sys.modules) == before
    if before:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize("where", ["savefig", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Figure if where == "savefig" else os, where, fail)
    with pytest.raises(OSError, match="disk full"):
        plots.learning_curve(*fake(3), path=path, title="t")
    assert os.listdir(tmp_path) == ["curve.png"] and path.read_bytes() == b"old"


def test_the_file_is_synced_beside_its_place_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd)))

    def rename(source, target):
        assert source.parent == target.parent and not target.exists()
        events.append(pixels(source)[:2])
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    plots.learning_curve(*fake(3), path=tmp_path / "curve.png", title="t")
    assert events == ["sync", (1200, 750)]


def test_inputs_stay_untouched():
    steps, values = fake(3)
    values[1, 2] = np.inf
    before = values.copy()
    draw(steps, values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    ("steps", "values", "options", "words"),
    [
        ([1, 2], np.ones((3, 4)), {}, r"\[2\].*\[3, 4\]"),
        ([1, 2], np.ones(2), {}, r"\[2\], values \[2\]"),
        ([2, 1], np.ones((3, 2)), {}, "rise"),
        ([1, 2], np.full((3, 2), np.nan), {}, "none of the 6 values is finite"),
        ([1, 2], np.ones((3, 2)), {"diverged_at": [-1, 5]}, r"diverged_at.*\[3\]"),
        ([1, 2], np.ones((3, 2)), {"path": "curve.jpg"}, r"curve\.jpg.*\.png"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, steps, values, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        plots.learning_curve(steps, values, **{"path": "a.png", "title": "t", **options})
    assert os.listdir(tmp_path) == []


def many(count, seeds=6):
    """Curves of configurations that end at 100, 90, 80, ... in an order of their own."""
    rng = np.random.default_rng(count)
    steps = np.arange(1, 11) * 1_000
    ends = 100 - 10 * rng.permutation(count)
    noise = rng.normal(0, 2, (count, seeds, 10))
    return {
        f"config {end}": (steps, end * steps / steps[-1] + noise[i]) for i, end in enumerate(ends)
    }


def compare(curves, **options):
    return plots.comparison_figure(curves, title="study", **options).axes[0]


def bands(axes):
    return of_type(axes, type("FillBetweenPolyCollection", (), {}))


def test_configurations_are_drawn_as_their_iqm_and_band(tmp_path):
    curves = many(3)
    curves["other steps"] = (
        np.array([500, 20_000]),
        np.array([[1.0, 2.0], [3.0, 5.0], [8.0, 6.0]]),
    )
    axes = compare(curves, level=0.8, seed=3)
    assert legend(axes) == list(curves) and len(axes.lines) == len(bands(axes)) == 4
    for line, band, (steps, values) in zip(axes.lines, bands(axes), curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), steps)
        # Of 6 seeds one is cut on either side, of 3 none.
        expected = scipy.stats.trim_mean(values, 0.25, axis=0)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
        _, low, high = stats.interval(values, level=0.8, seed=3)
        corners = {tuple(vertex) for vertex in band.get_paths()[0].vertices}
        assert corners == {*zip(steps, low, strict=True), *zip(steps, high, strict=True)}
        assert band.get_facecolor()[0, :3].tolist() == pytest.approx(to_rgb(line.get_color()))
    assert axes.figure.legends[0].get_title().get_text() == ("IQM of 3 to 6 seeds, 80 % intervals")
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("study", "environment steps")
    low, high = axes.get_ylim()
    assert low < min(line.get_ydata().min() for line in axes.lines) and high > 100
    assert axes.get_xlim()[1] > 20_000
    path = plots.comparison(curves, path=tmp_path / "a.png", title="study")
    assert path == tmp_path / "a.png" and pixels(path)[:2] == (1200, 750)
    first = path.read_bytes()
    assert plots.comparison(curves, path=path, title="study").read_bytes() == first


def test_colors_can_be_told_apart_by_everyone():
    colors = [to_rgb(line.get_color()) for line in compare(many(8)).lines]
    assert len(set(colors)) == 8
    # Simulated deuteranopia and protanopia (Machado, Oliveira and Fernandes 2009, severity 1),
    # in linear light; the distance between any two, in the space of Oklab.
    deuteranopia = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    protanopia = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    linear = np.array([[(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in c]
                       for c in colors])  # fmt: skip
    for matrix in (np.eye(3), np.array(deuteranopia), np.array(protanopia)):
        seen = np.clip(linear @ matrix.T, 0, 1)
        cones = seen @ np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074],
                                 [0.0883, 0.2817, 0.6300]]).T  # fmt: skip
        lab = np.cbrt(cones) @ np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506],
                                         [0.0259, 0.7828, -0.8087]]).T  # fmt: skip
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(8, 1)]
        assert apart.min() > 0.07
        # And all stand out from white.
        assert (lab[:, 0] < 0.85).all()


def test_of_many_configurations_the_best_5_and_the_worst_3_are_drawn():
    axes = compare(many(8))
    assert legend(axes) == list(many(8)) and len(axes.lines) == 8
    curves = many(12)
    axes = compare(curves)
    assert legend(axes) == [f"config {n}" for n in (100, 90, 80, 70, 60, 10, 0, -10)]
    assert axes.figure.legends[0].get_title().get_text() == (
        "best 5 and worst 3 of 12: IQM of 6 seeds, 95 % intervals"
    )
    for line, name in zip(axes.lines, legend(axes), strict=True):
        expected = scipy.stats.trim_mean(curves[name][1], 0.25, axis=0)
        np.testing.assert_allclose(line.get_ydata(), expected)
    # What ends best, not what was best on the way.
    curves["config 10"][1][:, :5] += 1000
    assert legend(compare(curves)) == legend(axes)


def test_steps_of_other_configurations_are_left_out():
    """Rows of studies lie on the union of all steps, NaN where a configuration has none."""
    values = np.full((4, 6), np.nan)
    values[:, ::2] = np.arange(12).reshape(4, 3)
    axes = compare({"a": (np.arange(1, 7), values), "b": (np.arange(1, 7), np.ones((4, 6)))})
    assert axes.lines[0].get_xdata().tolist() == [1, 3, 5]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values[1:3, ::2].mean(axis=0))
    assert axes.lines[1].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]


def test_one_seed_each_has_lines_and_no_bands():
    axes = compare({"a": ([1, 2], [[3.0, 4.0]]), "b": ([1, 2], [[5.0, 6.0]])})
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3, 4], [5, 6]]
    assert bands(axes) == []
    assert axes.figure.legends[0].get_title().get_text() == "1 seed each (no interval)"


def inside(artist, figure):
    box, page = artist.get_window_extent(), figure.bbox
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
@pytest.mark.parametrize("length", [5, 30, 60, 300])
def test_words_stay_on_the_page_whatever_their_length(count, length):
    curves = {
        f"{i}{'learning_rate=1e-05, ' * 20}"[:length]: c for i, c in enumerate(many(count).values())
    }
    figure = plots.comparison_figure(
        curves,
        title="n" * 100,
        ylabel="return of training episodes (sum of rewards; no evaluation)",
    )
    figure.draw_without_rendering()
    axes, (entries,) = figure.axes[0], figure.legends
    assert inside(entries, figure) and inside(axes.yaxis.label, figure)
    assert inside(axes._left_title, figure)
    assert axes.get_window_extent().height > 0.45 * 750
    texts = [text.get_window_extent() for text in entries.get_texts()]
    assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    curves = {f"$x_{{${i}": values for i, values in enumerate(many(2).values())}
    plots.comparison(curves, path=tmp_path / "a.png", title="$x_{$", ylabel="$y_{$")
    assert legend(compare(curves)) == ["$x_{$0", "$x_{$1"]


@pytest.mark.parametrize(
    ("curves", "options", "words"),
    [
        ({}, {}, "holds no configuration"),
        ({"a": ([1, 2], np.ones((3, 4)))}, {}, r"\[2\].*\[3, 4\]"),
        ({"a": ([1, 2], np.ones((3, 2))), "b": ([2, 1], np.ones((3, 2)))}, {}, "rise"),
        ({"a": ([1], [[1.0]]), "b": ([1], [[np.nan]])}, {}, "none of the 1 values is finite"),
        ({"a": ([1], [[1.0]])}, {"path": "curve.jpg"}, r"curve\.jpg.*\.png"),
    ],
)
def test_mistakes_of_comparisons_are_named(tmp_path, monkeypatch, curves, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        plots.comparison(curves, **{"path": "a.png", "title": "t", **options})
    assert os.listdir(tmp_path) == []
