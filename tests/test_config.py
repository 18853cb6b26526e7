"""Protects: the presets' numbers, and that a wrong configuration never trains silently."""
import pytest
import yaml

import egstalker_nb as egs
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.core.errors import ConfigError

TABLE = {  # coarse, densify from, until, batch, threshold, iterations: the table that users are promised
    "quick_test": (100, 1000, 7000, 8, 0.001, 1000),
    "extended_test": (100, 1000, 7000, 8, 0.001, 20000),
    "production": (3000, 500, 15000, 1, 0.0002, 30000),
    "egstalker_paper": (3000, 500, 15000, 1, 0.0002, 30000),
}


@pytest.mark.parametrize("name", TABLE)
def test_presets_hold_the_promised_numbers(name):
    c = egs.load_config(name)
    found = (c.coarse_iterations, c.densify_from_iter, c.densify_until_iter, c.batch_size,
             c.densify_grad_threshold_coarse, c.iterations)
    assert found == TABLE[name] and c.densify_grad_threshold_fine == c.densify_grad_threshold_coarse


def test_args_default_fails_with_everything_that_is_wrong():
    with pytest.raises(ConfigError) as error:
        egs.load_config("args_default")
    text = str(error.value)
    assert "input_coordinate_dim is 4" in text and "net_width is 512" in text and "production" in text


@pytest.mark.parametrize("override, hint", [
    ({"iteration": 5}, "did you mean 'iterations'"),
    ({"batch_size": 0}, "1 ... 64"),
    ({"batch_size": True}, "whole number"),
    ({"batch_size": 2.0}, "whole number"),
    ({"feature_lr": "1e-3"}, "in YAML write 0.001"),
    ({"feature_lr": float("nan")}, "a number"),
    ({"plane_resolution": [64, "128"]}, "list of whole numbers"),
    ({"coarse_iterations": 40000}, "exceeds iterations"),
    ({"densify_from_iter": 16000}, "lies after"),
    ({"net_width": 96}, "must agree"),
    ({"prior": 5}, "prior must be text"),
    ({"attributes": "other"}, "attributes must be one of own, triplane"),
    ({"audio_token": ""}, "audio_token must be one of mouth, features"),
    ({"token_views": 3}, "token_views must be text"),
    ({"lambda_l1": 0.0, "lambda_dssim": 0.0}, "nothing would be learned"),
])
def test_wrong_values_are_errors_with_a_hint(override, hint):
    with pytest.raises(ConfigError, match=hint.replace("(", r"\(")):
        egs.load_config("production", **override)


def test_all_problems_are_listed_at_once():
    with pytest.raises(ConfigError, match="2 problem"):
        egs.load_config("production", batch_size=0, seed=-1)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'production'"):
        egs.load_config("prod")


def test_yaml_round_trip(tmp_path):
    first = egs.load_config("quick_test", lambda_lip=0.5, plane_resolution=[32, 64])
    first.save(tmp_path / "c.yaml")
    assert egs.load_config(tmp_path / "c.yaml") == first


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1,\n", "iterations: !!python/object/apply:os.getcwd []\n"])
def test_a_file_that_is_no_configuration_is_an_error(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError):
        egs.load_config(tmp_path / "c.yaml")


def test_stage_counts_on_one_counter():
    c = egs.load_config("quick_test")
    assert [c.stage(i) for i in (1, 100, 101, 1000)] == ["coarse", "coarse", "fine", "fine"]


def test_every_setting_survives_a_file_however_it_is_written(tmp_path):
    """Byte order mark, Windows line ends, comments, an end without a newline."""
    plain = egs.load_config("quick_test", iterations=1500, feature_lr=0.001).to_dict()
    lines = ["# mine", *(f"{name}: {yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}  # as it was"
                          for name, value in plain.items())]
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert egs.load_config(tmp_path / "c.yaml").to_dict() == plain


def test_a_file_whose_name_cannot_be_shown_is_a_configuration_all_the_same(tmp_path):
    for name in ("a\nb.yaml", "c\x1b[31m.yaml", "ä.yaml", "no suffix"):
        (tmp_path / name).write_text("iterations: 5000")
        preset = egs.load_config(tmp_path / name).preset
        assert preset.isprintable() and preset in ("custom", "ä", "no suffix")


@pytest.mark.parametrize("name", [5, None, ["production"], {"iterations": 5}])
def test_what_is_no_name_is_an_error(name):
    with pytest.raises(ConfigError, match="the name of a preset"):
        egs.load_config(name)


def test_a_file_beside_it_does_not_replace_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("production", "production.yaml"):
        (tmp_path / name).write_text("iterations: 5000")
    assert egs.load_config("production").iterations == 30_000
    assert egs.load_config("production.yaml").iterations == 5000


def test_settings_of_the_command_line_are_yaml():
    given = parse_settings(["iterations=200", "feature_lr=0.5", "plane_resolution=[32, 64]", " prior = a=b", "prior="])
    assert given == {"iterations": 200, "feature_lr": 0.5, "plane_resolution": [32, 64], "prior": None}
