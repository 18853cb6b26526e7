"""Protects: figures, diagrams and tables match the data, and the final check of a notebook fails when it should."""
import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from egstalker_nb.analysis import mouth_prediction
from egstalker_nb.analysis.audio_curves import compute_audio_curves
from egstalker_nb.config import FIELDS, load_config
from egstalker_nb.core import table
from egstalker_nb.core.errors import EgsError, InputError
from egstalker_nb.face.expression import LOWER
from egstalker_nb.face.landmarks import LIP_MARGIN, LIPS, rectangles
from egstalker_nb.media.audio import steps_of
from egstalker_nb.metrics import landmark_metrics
from egstalker_nb.metrics.image_metrics import psnr
from egstalker_nb.notebook import audio_figures, diagrams, figures, plots, tables
from egstalker_nb.rendering import inspection
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.speech import phones
from egstalker_nb.speech.encoders import EXTERNAL
from egstalker_nb.speech.prior import built_in_prior
from egstalker_nb.speech.voice_activity import loudness
from egstalker_nb.training.init_head import new_head


@pytest.fixture
def config():
    return load_config("quick_test")


@pytest.fixture
def head(tiny_dataset, config):
    torch.manual_seed(0)
    return new_head(tiny_dataset, config).eval().requires_grad_(False)


@pytest.fixture
def still(head, tiny_dataset):
    """Renders the canonical head."""
    return Renderer(head, tiny_dataset, deform=False)


@pytest.fixture
def moving(head, tiny_dataset):
    """Renders a head whose network has non-zero offsets."""
    for layer in head.deformation.heads.values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    return Renderer(head, tiny_dataset)


# ---- figures: each can be saved, has its axes named, and is not kept by pyplot ----

def saved(figure, folder):
    plots.finish(figure, folder, "picture")
    assert (folder / "figures" / "picture.png").stat().st_size > 1000
    assert plt.get_fignums() == [], "pyplot would show it a second time and keep it for ever"


@pytest.mark.parametrize("name", ["anatomy", "signals", "head_pose"])
def test_dataset_figures(tiny_dataset, tmp_path, name):
    saved(getattr(figures, name)(tiny_dataset, *([3] if name == "anatomy" else [])), tmp_path)


def test_head_figures(moving, tmp_path):
    saved(figures.gaussians_on_frame(moving, 2), tmp_path)
    saved(figures.views(moving), tmp_path)
    saved(figures.movement(moving, range(6), 2), tmp_path)
    saved(figures.mouth_modes(moving), tmp_path)
    saved(figures.mouth_space(moving), tmp_path)
    saved(figures.predicted_openings(moving), tmp_path)


def test_image_rows(tiny_dataset, tmp_path):
    ids = [1, 5, 9]
    truth = inspection.ground_truth(tiny_dataset, ids)
    saved(figures.against_truth(truth, 255 - truth, ["a", "b", "c"]), tmp_path)
    figure = figures.faces_and_mouths({"video": truth, "render": truth}, tiny_dataset.lip_rect[ids], ["a", "b", "c"])
    assert len(figure.axes) == 12, "a face and a mouth for each of two kinds and three frames"
    saved(figure, tmp_path)


def test_mouth_opening_figure(tmp_path):
    """Frames without a face leave gaps; a rendering without any face is no error."""
    saved(figures.speech_and_mouth(np.zeros(12), np.where(np.arange(12) % 3, 0.05, np.nan), np.zeros(12)), tmp_path)
    saved(figures.speech_and_mouth(np.zeros(12), np.full(12, np.nan), np.full(12, np.nan)), tmp_path)


def test_channels_are_named_where_the_encoder_has_names(tiny_dataset):
    """The rows must be labelled with the right phones; features from a file have numbers only."""
    def rows(encoder):
        ds = copy.copy(tiny_dataset)
        ds.encoder = encoder
        axis = figures.signals(ds).axes[1]
        return [(tick, words.get_text()) for tick, words in zip(axis.get_yticks(), axis.get_yticklabels())]

    assert rows({"name": "phones"}) == [(k + 0.5, name) for k, name in enumerate(phones.CLASSES)]
    assert rows({"name": "ctc"})[1] == (1.5, "a") and len(rows({"name": "ctc"})) == 29
    assert rows(EXTERNAL)[28] == (28.5, "28")


def test_a_plot_without_names_on_its_axes_is_refused(tmp_path):
    figure, (axis,) = plots.subplots()
    plots.curve(axis, [0, 1], [0, 1])
    with pytest.raises(InputError, match="both axes"):
        plots.finish(figure, tmp_path, "nameless")
    plots.label(axis, "time (s)", "level (dB)")
    saved(figure, tmp_path)


# ---- what the figures compute ----

def test_feature_windows_become_the_strip_they_were_cut_from():
    """Windows overlap; laid on a time axis, each step must appear once and at its own time."""
    strip = np.random.default_rng(0).normal(size=(40, 29)).astype(np.float32)
    padded = np.pad(strip, ((8, 8), (0, 0)))
    windows = np.stack([padded[2 * i:2 * i + 16] for i in range(20)])
    np.testing.assert_array_equal(steps_of(windows), strip)


def test_loudness_is_in_decibels_of_full_scale():
    """A full-scale sine is 3 dB below full scale; half of it 6 dB less; silence and missing audio are the floor."""
    sine = np.sin(2 * np.pi * 100 * np.arange(640) / 16000).astype(np.float32)
    level = loudness(np.concatenate([sine, sine / 2, 0 * sine]), 4)
    np.testing.assert_allclose(level, [-3.01, -9.03, -60, -60], atol=0.02)


def test_landmarks_of_the_mean_face_fall_on_the_tracked_ones(tiny_dataset):
    """Head frame to pixels: a wrong axis or centre would paint points beside the face."""
    for i in (0, 7):
        face = torch.from_numpy(tiny_dataset.mean_face)
        pixels, depth = inspection.project_points(tiny_dataset, tiny_dataset.w2c[i], face)
        np.testing.assert_allclose(pixels, tiny_dataset.landmarks[i, :, :2], atol=0.01)
        assert (depth > 0).all()


def test_mouth_is_found_in_any_pose(tiny_dataset):
    """Of the mean face, in its own poses as tracked; a head further right has its mouth there."""
    ds = tiny_dataset
    tracked = rectangles(ds.landmarks, LIPS, LIP_MARGIN, ds.size)
    np.testing.assert_array_equal(inspection.lip_rects(ds, ds.w2c), tracked)
    moved = ds.w2c[:1].copy()
    moved[:, 0, 3] += 9 * 0.2 * moved[:, 2, 3] / ds.focal
    assert (inspection.lip_rects(ds, moved)[0, [0, 2]] - tracked[0, [0, 2]]).tolist() == pytest.approx([2, 2], abs=1)


def test_faces_of_codes_open_as_the_tracked_mouth_does(sample_dataset, config):
    """Predicted and tracked openings are compared: for tracked coefficients both must agree."""
    ds = sample_dataset
    renderer = Renderer(new_head(ds, config), ds)
    shown = landmark_metrics.aperture(inspection.mean_faces(renderer, renderer.head.mouth.coefficients[:ds.num_train]))
    tracked = ds.aperture[:ds.num_train]
    assert np.corrcoef(shown, tracked)[0, 1] > 0.97
    assert shown.std() == pytest.approx(tracked.std(), rel=0.15)


def test_modes_are_drawn_two_standard_deviations_around_the_mean(sample_dataset, config):
    """Each of the four panels shows its own mode and no other."""
    renderer, codes = Renderer(new_head(sample_dataset, config), sample_dataset), torch.zeros(1, 8)
    codes[0, 1] = 2
    mean, second = (inspection.mean_faces(renderer, c)[0][LIPS] for c in (torch.zeros(1, 8), codes))
    lines = [np.column_stack(line.get_data()) for line in figures.mouth_modes(renderer).axes[1].lines]
    outer = lines[::2]
    assert np.abs(second - mean).max() > 0.01, "head units"
    np.testing.assert_allclose(outer[2][:-1], second, atol=1e-6)
    np.testing.assert_allclose(outer[1][:-1], mean, atol=1e-6)
    np.testing.assert_allclose(outer[0] + outer[2], 2 * outer[1], atol=1e-5)


@pytest.fixture(scope="module")
def speaking(sample_dataset):
    """The untrained head of the sample, whose mouth is predicted through the speaker prior."""
    return Renderer(new_head(sample_dataset, load_config("quick_test")), sample_dataset)


@pytest.fixture(scope="module")
def curves(speaking, sample_clip):
    return compute_audio_curves(speaking, audio_script(speaking, sample_clip.with_name("speech.wav")))


def test_the_shared_mouth_space_is_drawn_on_this_face(speaking):
    """Two standard deviations of other speakers, as large as this mouth's motion, around its mean; r of the prior."""
    ds, prior, mouth = speaking.ds, speaking.head.mouth.link.prior, speaking.head.mouth
    moved = ds.mouth[:ds.num_train] - mouth.mean.numpy()
    second = (2 * moved.std() * prior.spread[1] * prior.basis[1]).numpy().reshape(-1, 2)
    expected = (ds.mean_face[LOWER, :2] + mouth.mean.numpy().reshape(-1, 2) + second)[[LOWER.index(i) for i in LIPS]]
    axis = figures.mouth_space(speaking).axes[1]
    np.testing.assert_allclose(np.column_stack(axis.lines[4].get_data())[:-1], expected, atol=1e-5)
    assert f"r = {built_in_prior().facts['cross_validated_r'][1]:.2f}" in axis.get_title()


def test_r_on_new_speakers_is_that_of_the_heads_own_prior(speaking):
    """A loaded head has the tensors of its prior only; r of the package's must not be shown for another one."""
    assert len(mouth_prediction.new_speakers_r(built_in_prior())) == 8
    loaded = copy.deepcopy(speaking.head.mouth.link.prior)
    loaded.facts = {}
    assert mouth_prediction.new_speakers_r(loaded) == built_in_prior().facts["cross_validated_r"]
    loaded.linear[0, 0] += 1
    assert mouth_prediction.new_speakers_r(loaded) == []


def test_predicted_openings_say_what_prior_and_person_reach(speaking):
    """Of the sample, whose mouth was made from its speech; the legend shows r of the curves as drawn."""
    ds = speaking.ds
    tracked, prior, both = mouth_prediction.openings(speaking).values()
    np.testing.assert_array_equal(tracked, ds.aperture)
    r = [np.corrcoef(opening[:ds.num_train], tracked[:ds.num_train])[0, 1] for opening in (prior, both)]
    assert r[0] > 0.4 and r[1] > 0.5 and not np.allclose(prior, both, atol=0.01)
    assert 0.5 < prior[:ds.num_train].std() / tracked[:ds.num_train].std() < 1.5, "moved as much as the clip"
    names = [line.get_label() for line in figures.predicted_openings(speaking).axes[0].lines]
    assert names[0] == "tracked" and [f"r = {x:.2f} (training)" in name for x, name in zip(r, names[1:])] == [True] * 2


def test_without_a_prior_the_opening_is_that_of_the_ridge_regression(tiny_dataset, config, tmp_path):
    """Heads of other encoders show the shared space for reference, and one prediction."""
    ds = copy.copy(tiny_dataset)
    ds.encoder = EXTERNAL
    renderer = Renderer(new_head(ds, config), ds)
    assert list(mouth_prediction.openings(renderer)) == ["tracked", "ridge regression"]
    saved(figures.mouth_space(renderer), tmp_path)
    saved(figures.predicted_openings(renderer), tmp_path)


def test_each_sound_has_its_mouth(curves):
    """Sorted by opening, the mean over its own frames; rare sounds are left out."""
    all_means, means = curves.by_sound(1), curves.by_sound(3)
    assert sum(mean.frames for mean in all_means) == len(curves)
    assert [mean.opening for mean in all_means] == sorted(mean.opening for mean in all_means)
    assert means == [mean for mean in all_means if mean.frames >= 3] and 5 < len(means) < len(all_means)
    a = next(mean for mean in means if mean.sound == "a")
    here = curves.features[:, 8:10, phones.CLASSES.index("a")].sum(1) == curves.features[:, 8:10].sum(1).max(1)
    assert a.frames == here.sum() and a.opening == pytest.approx(curves.opening[here].mean())
    assert a.width == pytest.approx(curves.width[here].mean())


def test_b_p_m_and_silence_shut_the_lips(curves):
    """Of the sample's speech, as the head is driven by it; each frame counts somewhere."""
    shut, silent, other = curves.shut_by.values()
    assert shut.sum() >= 3 and silent.sum() >= 3 and (shut | silent | other).all()
    level = curves.opening[other].mean()
    assert curves.opening[shut].mean() < 0.4 * level and curves.opening[silent].mean() < 0.25 * level
    assert curves.shut < 0.25 * level


def test_sound_figure_shows_each_sound_with_its_frames(curves, tmp_path):
    figure, means = audio_figures.sound_figure(curves), curves.by_sound()
    opening, width = figure.axes
    assert [label.get_text() for label in opening.get_xticklabels()] == [mean.sound for mean in means]
    assert [bar.get_height() for bar in opening.containers[0]] == pytest.approx([mean.opening for mean in means])
    assert [text.get_text() for text in opening.texts] == [str(mean.frames) for mean in means]
    hatched = [mean.sound for mean, bar in zip(means, opening.containers[0]) if bar.get_hatch()]
    assert hatched and set(hatched) <= {"sil", "b", "m"}
    assert [bar.get_height() for bar in width.containers[0]] == pytest.approx(
        [mean.width - curves.width.mean() for mean in means])
    saved(figure, tmp_path)


def test_mouth_is_centred_and_enlarged():
    """Also at the border of the image, where the crop reaches outside."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[50:60, 4:16] = (255, 0, 0)
    crop = inspection.crop_mouth(picture, np.array([4, 50, 16, 60]), edge=96)
    assert crop.shape == (96, 96, 3)
    red = crop[..., 0] > 128
    rows, columns = np.nonzero(red)
    assert abs(columns.mean() - 47.5) < 0.6 and abs(rows.mean() - 47.5) < 0.6
    assert 0.5 < red.any(0).mean() <= 1.0


def test_psnr_of_a_known_error():
    a = np.full((2, 16, 16, 3), 100, np.uint8)
    assert float(psnr(a + 51, a).mean()) == pytest.approx(-20 * np.log10(51 / 255), abs=1e-4)


def test_values_are_painted_unchanged_where_the_head_is(head, still):
    """Blending must not darken a value at soft edges; where there is no head there is no value."""
    image = inspection.render_values(still, 2, torch.full((len(head), 1), 7.0))[..., 0]
    seen = np.isfinite(image)
    assert 0.05 < seen.mean() < 0.9
    np.testing.assert_allclose(image[seen], 7, rtol=1e-3)
    right = (head.gaussians["means"][:, :1] > 0).float()
    image = inspection.render_values(still, 0, right)[..., 0]
    assert np.nanmean(image[:, 42:]) > 0.8 > 0.2 > np.nanmean(image[:, :22])


def test_rendered_follows_the_order_asked_for_and_the_offsets(head, still, tiny_dataset):
    """Frames come back in the order of `ids` over all batches; at the start the deformation changes nothing."""
    ids, deformed = [9, 0, 4], Renderer(head, tiny_dataset)
    canonical = inspection.render_frames(still, ids, batch=2)
    for picture, i in zip(canonical, ids):
        np.testing.assert_array_equal(picture, inspection.render_frames(still, [i])[0])
    np.testing.assert_array_equal(inspection.render_frames(deformed, ids), canonical)
    assert all(not o.any() for o in inspection.offsets(deformed, ids).values())
    torch.nn.init.normal_(head.deformation.heads["means"].weight, std=0.1)
    assert (inspection.render_frames(deformed, ids) != canonical).any()


# ---- diagrams ----

@pytest.mark.parametrize("name", diagrams.METHODS)
def test_diagram_is_readable(name):
    """Arrows join boxes that exist, boxes lie apart, and every text fits into its box."""
    diagram = diagrams.METHODS[name]
    assert {key for pair in diagram.arrows + diagram.back for key in pair} == set(diagram.boxes)
    places = [box[:2] for box in diagram.boxes.values()]
    assert all(abs(a[0] - b[0]) >= 1 or abs(a[1] - b[1]) >= 1 for i, a in enumerate(places) for b in places[:i])
    figure = diagrams.method(name)
    figure.canvas.draw()
    axis, = figure.axes
    boxes = [p for p in axis.patches if hasattr(p, "get_boxstyle")]
    for words, box in zip(axis.texts, boxes):
        inner, outer = words.get_window_extent(), box.get_window_extent()
        assert inner.width < outer.width and inner.height < outer.height, words.get_text()


def test_unknown_diagram_is_refused():
    with pytest.raises(InputError, match="preparation"):
        diagrams.method("magic")


# ---- tables ----

def test_every_setting_is_explained(config):
    """The table is the reference of the settings: every field has a help text, and changes are marked."""
    rows = {row[1]: row for row in tables.settings(config).rows}
    assert set(rows) == set(FIELDS) - {"preset"}
    assert rows["batch_size"][5] == FIELDS["batch_size"].metadata["help"]
    assert all(len(row[5]) > 10 for row in rows.values())
    assert rows["coarse_iterations"][2:5] == (100, "*", 3000) and rows["sh_degree"][3] == ""


def test_report_table_knows_what_preparation_writes(sample_dataset):
    """A value that preparation renames would silently show as missing."""
    assert [name for name, value, _ in tables.report(sample_dataset.report).rows if value is None] == []


def test_report_table_shows_missing_values_as_missing():
    shown = {row[0]: row[1] for row in tables.report({"num_frames": 12, "cuts": []}).rows}
    assert shown["num_frames"] == 12 and shown["cuts"] == [] and shown["reprojection_px.rms"] is None


def test_table_as_html_and_as_text():
    """Text from a user's file must not become markup."""
    shown = table.Table(("name", "value"), [("<b>", 0.123456), ("none", None), ("list", [1, True])], caption="a & b")
    html = shown._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and "a &amp; b" in html
    assert str(shown).splitlines() == ["a & b", "name  value", "<b>   0.1235", "none  -", "list  1, yes"]


def test_tensor_table_gives_shape_type_and_range():
    (row,) = tables.tensors({"x": (np.array([[1, -2]], np.int16), "what")}).rows
    assert row == ("x", [1, 2], "int16", -2.0, 1.0, "what")


def test_check_passes_within_the_range_ends_included():
    table = tables.check(("a", 1, 1, 2, "Fix a."), ("b", np.float32(0.5), 0, 1, "Fix b."))
    assert [row[-1] for row in table.rows] == ["passed", "passed"]


@pytest.mark.parametrize("value", [0.89, 1.01, float("nan")])
def test_check_names_what_failed_and_what_to_do(value):
    """A notebook with a wrong result must fail, also with NaN."""
    with pytest.raises(EgsError, match=r"faces in 0.9 ... 1; found .*\. Look at it\.") as caught:
        tables.check(("fine", 1, 0, 1, "Never shown."), ("faces", value, 0.9, 1, "Look at it."))
    assert "Never shown" not in str(caught.value)
