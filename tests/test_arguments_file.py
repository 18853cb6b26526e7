"""Upstream `arguments/*.py` files: read as literals, never executed; what becomes of each setting is said."""
import pytest

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.upstream.arguments_file import SIGNATURE, UPSTREAM_FILES
from egstalker_nb.upstream.setting_verdicts import ABSENT, KEPT, RENAMED

#: as files of this kind look: a docstring, comments, a nested dictionary, sums, settings of both groups
WHOLE = '''"""Notes of whoever wrote it."""
# for a head of 64 channels
ModelHiddenParams = dict(
    kplanes_config = {
     'grid_dimensions': 2,
     'input_coordinate_dim': 3,
     'output_coordinate_dim': 32,
     'resolution': [64, 64, 64],
    },
    multires = [1, 2],
    net_width = 128, d_model = 64, n_head = 2,
    bounds = 1.6,
    no_do = False,
    drop_out = 0.1,
)
OptimizationParams = dict(
    coarse_iterations = 100, iterations = 20 * 1000, batch_size = 8,
    densify_from_iter = 1000, densify_until_iter = 7000, densify_grad_threshold_coarse = 0.001,
    position_lr_init = 0.00016,
    drop_probb = 0.2,
)
'''


def read(tmp_path, text):
    (tmp_path / "args.py").write_text(text)
    return egs.read_arguments(tmp_path / "args.py")


def test_settings_of_all_groups_are_read_and_train_here(tmp_path):
    found = read(tmp_path, "ModelHiddenParams = dict(net_width=32 * 2, grid_pe=0)\n"
                           "OptimizationParams = dict(\n    coarse_iterations=100,\n    iterations=1000)\n")
    assert found.settings == {"net_width": 64, "grid_pe": 0, "coarse_iterations": 100, "iterations": 1000}
    assert found.lines["coarse_iterations"] == 3
    rows = {row[0]: tuple(row[1:]) for row in found.table().rows}
    assert rows["coarse_iterations"] == (3, 100, 3000, "taken over")
    assert rows["grid_pe"][:3] == (1, 0, None) and rows["grid_pe"][3].startswith("not used here: ")
    config = found.config()
    assert (config.coarse_iterations, config.iterations, config.preset) == (100, 1000, "args")


def test_each_setting_has_its_verdict(tmp_path):
    """Renamed, nested, of other units, without a counterpart, unknown: each is said, and what fits is taken over."""
    found = read(tmp_path, WHOLE)
    said = {name: verdict.text for name, verdict in found.verdicts().items()}
    assert said["position_lr_init"].startswith("ours kept") and "ten times upstream's" in said["position_lr_init"]
    assert said["bounds"].startswith("ours kept") and said["no_do"].startswith("not used here")
    assert said["net_width"].startswith("not used here") and said["d_model"] == "taken over as net_width"
    assert "unknown" in said["drop_out"] and said["drop_probb"] == "unknown; did you mean 'drop_prob'?"
    config, ours = found.config(), egs.load_config("production")
    assert (config.plane_resolution, config.output_coordinate_dim, config.net_width, config.num_heads) == (
        (64, 128), 32, 64, 2)
    assert (config.bounds, config.position_lr_init) == (ours.bounds, ours.position_lr_init)
    assert (config.iterations, config.batch_size) == (20_000, 8)


def test_every_field_is_an_upstream_name_or_is_not_in_the_lists():
    """A setting that gets a new name here must not be left in a list under the old one."""
    fields = set(egs.load_config("production").to_dict())
    assert set(KEPT) <= fields and set(RENAMED.values()) <= fields and not fields & (set(ABSENT) | set(RENAMED))
    assert set(SIGNATURE) <= fields and set(UPSTREAM_FILES) == set(egs.presets()) - {"egstalker_paper"}


@pytest.mark.parametrize("preset, changed", [
    ("quick_test", []), ("extended_test", []), ("production", []), ("quick_test", ["batch_size"]),
    ("production", ["iterations"]), ("args_default", [])])
def test_the_nearest_preset_is_the_one_that_the_file_came_from(tmp_path, preset, changed):
    """Whichever of upstream's three files it is, and also when one number of it was changed."""
    from egstalker_nb.upstream.arguments_file import _raw_preset

    values = {name: value for name, value in _raw_preset(preset).to_dict().items() if name in SIGNATURE}
    values.update({name: values[name] + 1 for name in changed})
    found = read(tmp_path, "OptimizationParams = " + repr(values))
    assert found.nearest() == (preset, changed)
    assert f"resembles the preset {preset}" in found.table().caption


@pytest.mark.parametrize("line, what", [
    ("A = dict(x=open('made', 'w'))", "a call"), ("open('made', 'w')", "a call"),
    ("A = dict(**b)", "name"), ("A = (", "not Python"), ("A = dict(x='a' * 9)", ""), ("A = dict(x=y)", "a name"),
    ("import os", "an import"), ("from os import path", "an import"), ("class A(B): pass", "a class"),
    ("A = dict(x=f'{1}')", ""), ("A = dict(x={1, 2})", ""), ("A = dict(x=1e999)", "out of range"),
    ("A = dict(x=0x" + "f" * 9000 + ")", "out of range"), ("A = dict(x=" + "[" * 60 + "]" * 60 + ")", ""),
    ("A = dict(x=" + "1+" * 50 + "1)", ""), ("A = dict(z=2)", "'z' again, after line 1"), ("A = C = dict(x=1)", ""),
    ("A = {[1]: 2}", ""), ("A = {1: 2}", ""), ("A, C = 1, 2", ""), ("A = dict(x={**B})", ""), ("x = 1j", ""),
    ("x = b'a'", ""), ("A = dict(x=(lambda: 1)())", "a call"), ("if 1: x = 2", "")])
def test_anything_else_is_refused_with_its_line_and_not_executed(tmp_path, monkeypatch, line, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.py").write_text("B = dict(z=1)\n" + line + "\n")
    with pytest.raises(egs.EgsError, match="args.py, line 2") as error:
        egs.read_arguments("args.py")
    assert what in str(error.value) and not (tmp_path / "made").exists()


def test_a_file_that_exhausts_the_parser_is_an_error_too(tmp_path):
    with pytest.raises(egs.EgsError, match="args.py"):
        read(tmp_path, "A = dict(x=" + "1+" * 20_000 + "1)")


def test_what_is_inconsistent_is_said(tmp_path):
    """As for the preset `args_default`: a 4-D grid and another width do not load; a window that never opens trains."""
    four = read(tmp_path, "A = dict(d_model=512, kplanes_config=dict(input_coordinate_dim=4, output_coordinate_dim=32,"
                          " resolution=[64, 64, 64, 25]), multires=[1, 2])")
    assert four.nearest()[0] == "args_default" and len(four.problems()) == 2
    with pytest.raises(egs.EgsError, match=r"(?s)args.py.*input_coordinate_dim is 4.*net_width is 512"):
        four.config()
    never = read(tmp_path, "A = dict(densify_from_iter=1000, iterations=1000, coarse_iterations=100)")
    assert never.config() and ["no densification step" in problem for problem in never.problems()] == [True]
    assert read(tmp_path, "A = dict(iterations=20_000)").problems() == []


def test_base_is_reported_and_not_followed(tmp_path):
    (tmp_path / "base.py").write_text("A = dict(iterations=7)")
    found = read(tmp_path, "_base_ = './base.py'\nA = dict(batch_size=2)")
    assert "not followed" in found.verdicts()["_base_"].text
    assert found.config().iterations == egs.load_config("production").iterations


@pytest.mark.parametrize("name", ["prior", "preset", "tracking"])
def test_a_file_from_a_stranger_names_no_file_and_no_service(tmp_path, name):
    """A tracker gets rendered frames."""
    assert read(tmp_path, f"A = dict({name}='wandb')").overrides() == {}
    assert read(tmp_path, f"A = dict({name}='wandb')").config().tracking == ""


def test_command_explains_and_saves_a_configuration_that_loads(tmp_path, capsys):
    (tmp_path / "args.py").write_text(WHOLE)
    assert cli.main(["config", str(tmp_path / "args.py"), "--out", str(tmp_path / "mine.yaml")]) == 0
    assert "extended_test" in capsys.readouterr().out
    saved, direct = egs.load_config(tmp_path / "mine.yaml"), egs.read_arguments(tmp_path / "args.py").config()
    assert saved == direct
