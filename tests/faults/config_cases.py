"""Bad input: configurations, from files and with `--set`."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

from .bad_input import Case

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))


def file(content: str | bytes) -> Callable[[Path], list[Any]]:
    """The command that gets a configuration with this content; it is read before the dataset."""
    def command(folder: Path) -> list[Any]:
        (folder / "c.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        return ["train", "data", "run", "--config", "c.yaml"]

    return command


def named(name: str) -> Callable[[Path], list[Any]]:
    """... the name of a configuration."""
    return lambda folder: ["train", "data", "run", "--config", name]


def pairs(*given: str) -> Callable[[Path], list[Any]]:
    """... these settings."""
    return lambda folder: ["train", "data", "run", "--config", "quick_test", "--set", *given]


def upstream(content: str | bytes, *options: str) -> Callable[[Path], list[Any]]:
    """... an upstream arguments file with this content."""
    def command(folder: Path) -> list[Any]:
        (folder / "args.py").write_bytes(content.encode() if isinstance(content, str) else content)
        return ["config", "args.py", *options]

    return command


def _folder(folder: Path) -> list[Any]:
    (folder / "c.yaml").mkdir()
    return ["train", "data", "run", "--config", "c.yaml"]


def _pipe(folder: Path) -> list[Any]:
    os.mkfifo(folder / "c.yaml")
    return ["train", "data", "run", "--config", "c.yaml"]


def _link_loop(folder: Path) -> list[Any]:
    (folder / "c.yaml").symlink_to("c.yaml")
    return ["train", "data", "run", "--config", "c.yaml"]


def _unreadable(folder: Path) -> list[Any]:
    (folder / "c.yaml").symlink_to("/proc/self/mem")  # a file that says that it is empty, and cannot be read
    return ["train", "data", "run", "--config", "c.yaml"]


CASES: list[Case] = [
    Case("config_unknown_key", file("iteration: 5"), ("'iteration' is not a setting", "did you mean 'iterations'"), 2),
    Case("config_wrong_type", file("iterations: [1, 2]"), ("iterations must be a whole number", "[1, 2]"), 2),
    Case("config_no_such_choice", file("token_views: some"), ("token_views must be one of by part, all", "some"), 2),
    Case("config_out_of_range", file("batch_size: 1000"), ("batch_size must lie in 1 ... 64", "1000"), 2),
    Case("config_negative", file("feature_lr: -0.1"), ("feature_lr must lie in 0 ... 1", "-0.1"), 2),
    Case("config_several_problems", file("batch_size: 0\nseed: -1\nx: 1"), ("3 problem", "batch_size", "seed"), 4),
    Case("config_many_problems", file("".join(f"x{i}: {i}\n" for i in range(500))), ("500 problem", "490 more"), 12),
    Case("config_python_tag", file("iterations: !!python/object/apply:os.mkdir [planted]"), ("tags", "line 1")),
    Case("config_other_tag", file("iterations: !!timestamp 2001-01-01"), ("tags", "timestamp")),
    Case("config_alias_bomb", file(BOMB), ("c.yaml", "aliases", "line 2")),
    Case("config_merge_key", file("a: &a {iterations: 5}\n<<: *a"), ("aliases",)),
    Case("config_key_twice", file("iterations: 5\niterations: 6"), ("'iterations'", "twice", "line 2")),
    Case("config_tabs", file("iterations:\n\t5"), ("'\\t'", "line 2")),
    Case("config_utf16", file("iterations: 5".encode("utf-16")), ("UTF-8", "UTF-16")),
    Case("config_binary", file(bytes(range(256))), ("not UTF-8",)),
    Case("config_nul", file("iterations: 5\0"), ("#x0000",)),
    Case("config_empty", file(""), ("c.yaml", "holds nothing")),
    Case("config_only_comments", file("# iterations: 5\n"), ("holds nothing",)),
    Case("config_empty_list", file("[]"), ("a list",)),
    Case("config_list", file("- iterations: 5\n- seed: 1"), ("a list",)),
    Case("config_text", file("just some words"), ("a str", "just some words")),
    Case("config_date", file("iterations: 2001-01-01"), ("whole number", "2001-01-01"), 2),
    Case("config_deep_nesting", file("a: " + "[" * 5000), ("nesting",)),
    Case("config_not_closed", file("plane_resolution: [64,\n"), ("c.yaml", "line 2")),
    Case("config_exponent_without_a_dot", file("feature_lr: 1e-3"), ("a number", "'1e-3'", "write 0.001"), 2),
    Case("config_too_large_a_float", file("bounds: 1.0e+400"), ("bounds must lie", "inf"), 2),
    Case("config_too_large_an_integer", file(f"densify_until_iter: {10 ** 400}"), ("densify_until_iter must lie",), 2),
    Case("config_too_many_digits", file(f"seed: 0x{'f' * 9000}"), ("seed must lie", "very large int"), 2),
    Case("config_nan", file("bounds: .nan"), ("bounds must be a number", "nan"), 2),
    Case("config_number_as_text", file("batch_size: '8'"), ("whole number, not '8'", "write 8)"), 2),
    Case("config_keys_that_are_no_names", file("5: 1\nnull: 2"), ("5 is not a setting", "None is not a"), 3),
    Case("config_key_that_is_a_list", file("? [1, 2]\n: 3"), ("a key must be a name",)),
    Case("config_text_of_two_lines", file("prior: |\n  a\n  b"), ("prior must be text of one line",), 2),
    Case("config_contradiction", file("net_width: 96"), ("net_width is 96", "must agree"), 2),
    Case("config_too_large", file("# " + "x" * (2 << 20) + "\niterations: 5"), ("2,097 kB", "more than such a file")),
    Case("config_is_a_folder", _folder, ("'c.yaml' is not a file",)),
    Case("config_is_a_pipe", _pipe, ("'c.yaml' is not a file",)),
    Case("config_is_a_link_loop", _link_loop, ("c.yaml",)),
    Case("config_cannot_be_read", _unreadable, ("c.yaml", "cannot be read")),
    Case("config_missing", named("some/where.yaml"), ("there is no file 'some/where.yaml'",)),
    Case("config_unknown_preset", named("prod"), ("production", "Did you mean 'production'")),
    Case("config_name_too_long", named("x" * 5000 + ".yaml"), ("too long",)),
    Case("config_name_with_nul", named("a\0b"), ("a\\x00b",)),
    Case("set_without_value", pairs("iterations"), ("key=value", "'iterations'")),
    Case("set_without_key", pairs("=5"), ("key=value", "'=5'")),
    Case("set_not_yaml", pairs("iterations=[5"), ("key=value", "'iterations=[5'")),
    Case("set_tag", pairs("seed=!!python/object/apply:os.getpid []"), ("tags",)),
    Case("set_alias_bomb", pairs("seed=" + BOMB), ("aliases",)),
    Case("set_too_long", pairs("prior=" + "x" * 100_000), ("100000 characters",)),
    Case("set_wrong_type", pairs("iterations=many"), ("iterations must be a whole number, not 'many'",), 2),
    Case("set_unknown_tracker", pairs("tracking=tensorbord"), ("tensorboard, wandb, mlflow", "'tensorbord'"), 2),
    Case("upstream_import", upstream("import os\nA = dict(x=1)"), ("args.py, line 1: an import", "after --configs")),
    Case("upstream_defaults", upstream("class ModelParams(ParamGroup):\n  sh_degree = 3"), ("a class", "'production'")),
    Case("upstream_call", upstream("A = dict(\n x=__import__('os').mkdir('planted'))"), ("args.py, line 2: a call",)),
    Case("upstream_not_python", upstream("A = dict(\n x=1"), ("args.py, line 1: not Python", "dict(name=1")),
    Case("upstream_nul", upstream("A = dict(x=1)\0"), ("args.py",)),
    Case("upstream_binary", upstream(bytes(range(256))), ("args.py", "not UTF-8")),
    Case("upstream_empty", upstream("# nothing\n"), ("args.py: no settings",)),
    Case("upstream_too_large", upstream("# " + "x" * (2 << 20)), ("args.py", "more than such a file")),
    Case("upstream_nested_deeply", upstream("A = dict(x=" + "(" * 5000), ("args.py",)),
    Case("upstream_twice", upstream("A = dict(x=1)\nB = dict(x=2)"), ("args.py, line 2: 'x' again, after line 1",)),
    Case("upstream_number", upstream("A = dict(iterations=1e400)"), ("args.py, line 1: a number out of range",)),
    Case("upstream_out_of_range", upstream("A = dict(batch_size=1000)"), ("'args.py'", "batch_size must lie"), 2),
    Case("upstream_contradiction", upstream("A = dict(d_model=512)"), ("net_width is 512", "must agree"), 2),
    Case("upstream_missing", lambda folder: ["config", "some/where.py"], ("there is no file 'some/where.py'",)),
    Case("upstream_out", upstream("A = dict(iterations=9000)", "--out", "args.py"), (".yaml", "'args.py'")),
]
