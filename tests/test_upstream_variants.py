"""Protects the settings that bring back upstream's method, and its preset: each variant starts its fine stage as the
coarse result, learns, is saved and loaded, and speaks with other audio."""
import dataclasses

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.analysis.ablation import PAPER_CHANGES, Ablation, change_of
from egstalker_nb.core.errors import InputError, TrainingError
from egstalker_nb.media.audio import save_wav
from egstalker_nb.model.audio_windows import neighbours
from egstalker_nb.model.ply import load_ply
from egstalker_nb.notebook.tables import what_changes_buy
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.training.checkpoint import PLY, folder
from egstalker_nb.training.init_head import new_head

VARIANTS = {"attributes": {"attributes": "triplane"}, "audio_token": {"audio_token": "features"},
            "token_views": {"token_views": "all"}}
SHORT = dict(coarse_iterations=6, iterations=14, densify_from_iter=2, densify_until_iter=12, densification_interval=4)
EXPECTED = {"attributes": {"attributes.hidden", "attributes.opacity", "attributes.sh", "triplane"},
            "audio_token": {"encoders.audio.0.window", "encoders.audio.0.score", "encoders.audio.1"},
            "token_views": {"attention"}}


def paper(**overrides):
    return egs.load_config("egstalker_paper", **SHORT, **overrides)


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, paper(), tmp_path_factory.mktemp("p") / "paper", device="cpu")


def wake(head):
    for layer in [*head.deformation.heads.values(), *head.deformation.attributes.children()]:
        torch.nn.init.normal_(layer.weight, std=0.02)


@pytest.mark.parametrize("name", [*VARIANTS, "egstalker_paper"])
def test_the_fine_stage_starts_as_the_coarse_result_and_all_of_it_learns(name, tiny_dataset):
    torch.manual_seed(0)
    cfg = paper() if name == "egstalker_paper" else egs.load_config("production", **VARIANTS[name])
    head = new_head(tiny_dataset, cfg)
    ids = torch.tensor([0, 5])
    given = head.conditions(ids, torch.from_numpy(tiny_dataset.eyes)[ids])
    with torch.no_grad():
        coarse, fine = (head.eval().render(given, tiny_dataset.K, 64, deform=deform)[0] for deform in (False, True))
    assert torch.equal(coarse, fine) and coarse.std() > 0.01
    wake(head)
    head.train().render(given, tiny_dataset.K, 64)[0].square().mean().backward()
    still = {n for n, p in head.deformation.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert [n for n in still for part in EXPECTED.get(name, set.union(*EXPECTED.values())) if n.startswith(part)] == []


def test_the_coarse_stage_learns_opacity_and_colour_from_the_triplane(tiny_dataset):
    head = new_head(tiny_dataset, paper())
    wake(head)
    ids = torch.tensor([0])
    given = head.conditions(ids, torch.from_numpy(tiny_dataset.eyes)[ids])
    head.render(given, tiny_dataset.K, 64, deform=False)[0].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in head.deformation.triplane.parameters())
    assert head.gaussians["opacities"].grad is None and head.gaussians["sh0"].grad is None


def test_the_coarse_stage_trains_the_triplane_and_its_average_follows(tiny_dataset, tmp_path):
    cfg = paper()
    begun = new_head(tiny_dataset, cfg)
    head = egs.train(tiny_dataset, cfg, tmp_path / "run", until="coarse", device="cpu").load_head(device="cpu")
    assert head.deformation.attributes.sh.weight.abs().max() > 1e-4, "at first 0"
    assert all(torch.equal(layer.weight, torch.zeros_like(layer.weight)) for layer in head.deformation.heads.values())
    assert len(begun) == 478 and not torch.equal(begun.gaussians["opacities"], head.gaussians["opacities"][:478])


def test_lips_attend_to_all_tokens_where_views_are_all(tiny_dataset):
    attention = {}
    for views in ("by part", "all"):
        torch.manual_seed(0)
        head = new_head(tiny_dataset, egs.load_config("production", token_views=views)).eval()
        ids = torch.tensor([0])
        weights = head.attention(head.conditions(ids, torch.from_numpy(tiny_dataset.eyes)[ids]))[0]
        attention[views] = weights.min(1).values
    assert (attention["by part"] < 1e-3).any() and (attention["all"] > 1e-3).all()


def test_neighbouring_windows_are_zero_outside_of_the_audio():
    features = 1 + torch.arange(6.0)[:, None, None].expand(6, 16, 29)
    assert neighbours(features, torch.tensor([0, 5]))[:, :, 0, 0].tolist() == [[0, 0, 0, 0, 1, 2, 3, 4],
                                                                              [2, 3, 4, 5, 6, 0, 0, 0]]


def test_the_preset_is_saved_and_loaded_and_its_ply_is_what_is_rendered(run):
    head = run.load_head(device="cpu")
    assert len(head) > 478, "densified"
    opacities, sh = head.deformation.attributes(head.gaussians, head.deformation.triplane)
    saved = load_ply(folder(run.root, run.pick()) / PLY, 3)
    torch.testing.assert_close(saved["opacities"], opacities)
    torch.testing.assert_close(torch.cat([saved["sh0"], saved["shN"]], 1), sh)
    assert sh.std() > 0.01, "a colour that was learned"


def test_an_interrupted_run_ends_in_the_same_head(run, tiny_dataset, tmp_path):
    for until in (5, 8, None):
        again = egs.train(tiny_dataset, run.config, tmp_path / "run", until=until, device="cpu")
    heads = [r.load_head(device="cpu").state_dict() for r in (run, again)]
    assert [k for k in heads[0] if not torch.equal(heads[0][k], heads[1][k])] == []


def test_other_audio_replay_and_scores(run, tmp_path):
    save_wav(tmp_path / "a.wav", (0.2 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32))
    assert egs.render(run, tmp_path / "a.wav", tmp_path / "a.mp4", start=0.2, duration=0.4, device="cpu").path.is_file()
    assert egs.replay(run, "val", tmp_path / "r.mp4", device="cpu").path.is_file()
    assert np.isfinite(egs.evaluate(run, "val", device="cpu")["psnr_head"])
    renderer = egs.Renderer.from_run(run, device="cpu")
    whole, part = (audio_script(renderer, tmp_path / "a.wav", start=s, duration=0.4) for s in (0.0, 0.2))
    np.testing.assert_array_equal(part.features[:5], whole.features[5:10])  # the audio before a part counts
    heard = renderer.conditions_of(part)
    quiet = dataclasses.replace(heard, mouth=torch.zeros_like(heard.mouth))
    wake(renderer.head)
    with torch.no_grad():
        moved = renderer.head.offsets(heard)["means"] - renderer.head.offsets(quiet)["means"]
    assert moved.abs().max() > 1e-4


def test_validation_frames_get_the_features_of_their_own_audio(run):
    ds, head = run.dataset, run.load_head(device="cpu")
    i = ds.val_ids[0]
    given = head.conditions(torch.tensor([i]), torch.from_numpy(ds.eyes)[[i]])
    np.testing.assert_array_equal(given.mouth[0, 4].numpy(), ds.features[i])


def test_what_needs_mouth_coefficients_says_so(run, tmp_path):
    for call in (lambda: egs.export_web(run, tmp_path / "head.html", device="cpu"),
                 lambda: egs.stream(run, [np.zeros(640, np.float32)], device="cpu")):
        with pytest.raises(InputError, match="audio_token 'features'"):
            call()


def test_changes_are_upstreams_and_the_preset_has_them_all():
    ours, theirs = (egs.load_config(name).to_dict() for name in ("production", "egstalker_paper"))
    changed = {k: v for change in PAPER_CHANGES.values() for k, v in change.items()}
    assert changed == {k: v for k, v in theirs.items() if v != ours[k] and k != "preset"}


def test_a_table_without_values_says_how_to_get_them(tiny_dataset, tmp_path, capsys):
    table = what_changes_buy(tiny_dataset, tmp_path / "none", 0)
    assert "ablation_iterations" in capsys.readouterr().out and not (tmp_path / "none").exists()
    assert len(table.rows) == 2 + len(PAPER_CHANGES) and table.rows[0][0] == "production"


def test_a_head_that_is_lost_is_a_row(tiny_dataset, tmp_path, monkeypatch):
    def lost(*given):
        raise TrainingError("a head", "a collapse by iteration 20", "Train another.")

    monkeypatch.setattr("egstalker_nb.analysis.ablation.train", lost)
    (row,) = Ablation(tiny_dataset, tmp_path, 8, {}).rows()
    assert "collapse by iteration 20" in row["note"] and row["psnr_composite"] is row["difference"] is None


def test_an_ablation_trains_each_change_alone(tiny_dataset, tmp_path):
    short = {name: value for name, value in SHORT.items() if name != "iterations"}
    ablation = Ablation(tiny_dataset, tmp_path, 14, {"as upstream": {"token_views": "all"}}, **short)
    rows = list(ablation.rows())
    assert [row["change"] for row in rows] == ["production", "as upstream"]
    assert rows[1]["difference"] == pytest.approx(rows[1]["psnr_composite"] - rows[0]["psnr_composite"])
    assert [r.config.token_views for r in map(egs.load_run, (tmp_path / "production", tmp_path / "as_upstream"))] == [
        "by part", "all"]
    assert len(ablation.table().rows) == 2 and change_of({"pose_steps": 0}) == "pose_steps: 0"
