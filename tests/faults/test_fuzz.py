"""Protects: whatever stands in a file, reading it gives something usable or one error of one line, in bounded memory.

Each parser gets valid files with damage, and files that nobody would write (see `fuzzing`). By default a few seconds,
with the same examples every time; `EGS_FUZZ=3600 pytest tests/faults/test_fuzz.py` takes an hour, with new ones.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import egstalker_nb as egs
from egstalker_nb.cli.options import parse_settings
from egstalker_nb.core.device import PROC, _fields
from egstalker_nb.core.errors import ConfigError, EgsError
from egstalker_nb.core.reading import read_npy, read_npz
from egstalker_nb.media.audio import load_features
from egstalker_nb.model.ply import load_ply, save_ply
from egstalker_nb.rendering.motion import _check_closing, _check_poses, resolve_blink, resolve_poses
from egstalker_nb.speech.prior import BUILT_IN, load_prior
from egstalker_nb.training import checkpoint
from egstalker_nb.training.history import History
from egstalker_nb.training.init_head import new_head
from egstalker_nb.training.run import METRICS

from .bad_input import MAX_MESSAGE
from .fuzzing import (
    VALUES,
    damaged,
    edited,
    json_file,
    npy_file,
    npz_file,
    safetensors_file,
    text_with,
    torch_file,
)
from .made import ITERATION, make_run

SECONDS = float(os.environ.get("EGS_FUZZ", 0))  # for all parsers together; 0: the default run
CHECKPOINT = f"checkpoints/iteration_{ITERATION}"
MAX_BYTES, MAX_SECONDS = 1 << 30, 60            # that reading one of the files, all below 1 MB, may take


@dataclass(frozen=True)
class Parser:
    """Something that reads files.

    Attributes:
        inputs: strategy of the contents of the file, as bytes; or of any input, if there is no file.
        file: where the contents are written, if anywhere.
        read: reads it, and checks that what it returns can be used.
        examples: in the default run.
    """

    inputs: SearchStrategy
    file: Path | None
    read: Callable[[Any], Any]
    examples: int = 60


@contextlib.contextmanager
def bounded():
    """No more than `MAX_BYTES` of further memory, and an end to loops without one."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = _fields(PROC / "self" / "status")["VmData"] if PROC.is_dir() else 0
    resource.setrlimit(resource.RLIMIT_DATA, (used + MAX_BYTES, before[1]) if used else before)
    old = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"still reading after {MAX_SECONDS} s"))
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_DATA, before)


def check(parser: Parser, content: Any) -> None:
    """Give a parser one input."""
    if parser.file is not None:
        parser.file.write_bytes(content)
    try:
        with warnings.catch_warnings(), bounded(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            parser.read(content)
    except EgsError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1 or isinstance(error, ConfigError) and "problem(s)" in lines[0], lines
        assert len(str(error)) <= MAX_MESSAGE, f"{len(str(error))} characters"


# ---- the parsers ----

def _config(path: Path, **overrides: Any) -> None:
    config = egs.load_config(path, **overrides)
    again = path.with_name("again.yaml")
    config.save(again)
    assert egs.load_config(again) == config


def _arguments(path: Path) -> None:
    found = egs.read_arguments(path)
    assert str(found.table()) and isinstance(found.problems(), list)
    found.config()


def _pairs(pairs: list[str]) -> None:
    egs.load_config("quick_test", **parse_settings(pairs))


def _dataset(root: Path) -> None:
    ds = egs.load_dataset(root)
    assert len(ds) == 12 and np.isfinite(ds.eyes).all() and np.isfinite(ds.mouth).all() and len(ds.hash) == 12
    assert repr(ds) and isinstance(ds.report["warnings"], list)
    with contextlib.suppress(EgsError):  # of another encoder
        egs.load_encoder(ds.encoder)


def _run(root: Path) -> None:
    run = egs.load_run(root)
    assert repr(run)
    run.pick()
    run.metrics()
    checkpoint.load(root, ITERATION, checkpoint.STATE)
    assert run.dataset.size == 64


def _metrics(root: Path) -> None:
    assert len(History(root).rows) == len(egs.load_run(root).metrics())


def _head(root: Path) -> None:
    head = egs.load_run(root).load_head(device="cpu")
    assert all(value.isfinite().all() for value in head.state_dict().values())


def _poses(path: Path, renderer: Any) -> None:
    _check_poses(renderer, resolve_poses(path), 12)


def _prior(path: Path) -> None:
    prior = load_prior(path)
    assert prior(torch.zeros(1, 16, 29)).shape == (1, 8)


class _Unreadable(EgsError):
    """Of `core.reading`, whose errors callers turn into their own."""


def _plain(read: Callable[[Path], Any], path: Path) -> None:
    from egstalker_nb.core.reading import Unreadable

    try:
        values = read(path)
    except Unreadable as error:
        raise _Unreadable("a file", str(error), "") from error
    for array in values.values() if isinstance(values, dict) else [values]:
        assert array.dtype.kind in "biuf" and np.isfinite(array).all()


def _forget_checksums(root: Path) -> None:
    """As runs of format 0, so that a damaged file is read at all."""
    (root / CHECKPOINT / checkpoint.STATE).write_text(
        json.dumps({"iteration": ITERATION, "stage": "fine", "points": 478}))


def config_files() -> SearchStrategy[bytes]:
    whole = egs.load_config("production").to_dict()
    short = "iterations: 10\ncoarse_iterations: 2\nplane_resolution: [64, 128]\nprior: x\n"
    return st.one_of(
        edited(whole).map(lambda v: yaml.safe_dump(v).encode()), damaged(yaml.safe_dump(whole).encode()),
        damaged(short.encode()), text_with(short).map(lambda t: t.encode("utf-8", "surrogatepass")),
        st.text(max_size=50).map(str.encode), st.binary(max_size=50))


def settings_pairs() -> SearchStrategy[list[str]]:
    names = st.sampled_from(["iterations", "feature_lr", "plane_resolution", "prior", "preset", "itertions", ""])
    values = st.one_of(VALUES.map(str), st.text(max_size=20), text_with("a: 1\nb: [2]").map(lambda t: t[3:]))
    pair = st.one_of(st.builds("{}={}".format, names, values), st.text(max_size=10))
    return st.lists(pair, min_size=1, max_size=3)


def ply_files(ds: egs.Dataset, folder: Path) -> SearchStrategy[bytes]:
    save_ply(folder / "valid.ply", dict(new_head(ds, egs.load_config("quick_test")).gaussians))
    data = (folder / "valid.ply").read_bytes()
    header, end, body = data.partition(b"end_header\n")
    lines = ("element vertex 1000000000000", "element vertex -1", "element face 1", "format ascii 1.0",
             "format binary_big_endian 1.0", "property double x", "property list uchar int x", "end_header")
    return st.one_of(damaged(data), damaged(header),
                     text_with(header.decode(), lines).map(lambda t: t.encode() + b"\n" + end + body))


def arguments_files() -> SearchStrategy[bytes]:
    """Upstream arguments files: settings with other values, or other bytes."""
    planes = {"input_coordinate_dim": 3, "output_coordinate_dim": 32, "resolution": [64, 64, 64]}
    settings_of = {"kplanes_config": planes, "multires": [1, 2], "d_model": 64, "iterations": 9000,
                   "bounds": 1.6, "_base_": "./base.py"}

    def text(values: Any) -> bytes:
        return f"ModelHiddenParams = {values!r}\n".encode("utf-8", "replace")

    return st.one_of(edited(settings_of).map(text), damaged(text(settings_of)))


def metrics_files(path: Path) -> SearchStrategy[bytes]:
    row = json.loads(path.read_text().splitlines()[0])
    rows = st.lists(edited(row), max_size=4).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    return st.one_of(damaged(path.read_bytes()), rows)


@pytest.fixture(scope="module")
def parsers(tiny_dataset, tmp_path_factory) -> dict[str, Callable[[], Parser]]:
    """Name -> makes a Parser with a folder of its own."""
    top = tmp_path_factory.mktemp("fuzz")
    original = make_run(top / "run", tiny_dataset).root

    def dataset(file: str, inputs: Callable[[Path], SearchStrategy]) -> Parser:
        root = shutil.copytree(tiny_dataset.root, top / f"with another {file}")
        return Parser(inputs(root / file), root / file, lambda _: _dataset(root), 100)

    def run(file: str, inputs: Callable[[Path], SearchStrategy], read: Callable[[Path], Any],
            checksums: bool = True) -> Parser:
        root = shutil.copytree(original, top / f"with another {Path(file).name}")
        if not checksums:
            _forget_checksums(root)
        return Parser(inputs(root / file), root / file, lambda _: read(root))

    def file(name: str, inputs: SearchStrategy, read: Callable[[Path], Any], examples: int = 100) -> Parser:
        return Parser(inputs, top / name, lambda _: read(top / name), examples)

    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 16, 29)).astype(np.float32)
    stand_in = SimpleNamespace(ds=tiny_dataset, w2c=tiny_dataset.w2c)
    wave = np.zeros(12 * 640, np.float32)
    return {
        "config.yaml": lambda: file("config.yaml", config_files(), _config, 250),
        "args.py": lambda: file("args.py", arguments_files(), _arguments, 150),
        "--set": lambda: Parser(settings_pairs(), None, _pairs, 150),
        "PLY": lambda: file("points.ply", ply_files(tiny_dataset, top), load_ply, 80),
        "npy": lambda: file("any.npy", npy_file(features), lambda path: _plain(read_npy, path), 150),
        "npz": lambda: file("any.npz", npz_file({"a": features, "b": np.arange(4)}),
                            lambda path: _plain(read_npz, path)),
        "features": lambda: file("f.npy", npy_file(features), lambda path: load_features(path, wave)),
        "poses": lambda: file("poses.npy", npy_file(tiny_dataset.w2c), lambda path: _poses(path, stand_in)),
        "blinks": lambda: file("blink.npy", npy_file(tiny_dataset.blink),
                               lambda path: _check_closing(resolve_blink(path), 12)),
        "dataset.json": lambda: dataset("dataset.json", lambda path: json_file(json.loads(path.read_text()))),
        "report.json": lambda: dataset("report.json", lambda path: json_file(json.loads(path.read_text()))),
        "tracking.npz": lambda: dataset("tracking.npz", lambda path: npz_file(dict(np.load(path)))),
        "features.npy": lambda: dataset("features.npy", lambda path: npy_file(np.load(path))),
        "audio.wav": lambda: dataset("audio.wav", lambda path: damaged(path.read_bytes())),
        "manifest.json": lambda: run("manifest.json", lambda path: json_file(json.loads(path.read_text())), _run),
        "config of a run": lambda: run("config.yaml", lambda path: damaged(path.read_bytes()), _run),
        "metrics.jsonl": lambda: run(METRICS, metrics_files, _metrics),
        "state.json": lambda: run(f"{CHECKPOINT}/{checkpoint.STATE}",
                                  lambda path: json_file(json.loads(path.read_text())), _run),
        "head.safetensors": lambda: run(f"{CHECKPOINT}/{checkpoint.HEAD}",
                                        lambda path: safetensors_file(path.read_bytes()), _head, checksums=False),
        "trainer.pt": lambda: run(f"{CHECKPOINT}/{checkpoint.TRAINER}", lambda path: torch_file(path.read_bytes()),
                                  lambda root: checkpoint.load(root, ITERATION, checkpoint.TRAINER), checksums=False),
        "prior": lambda: file("prior.safetensors", safetensors_file(BUILT_IN.read_bytes()), _prior, 40),
    }


NAMES = ("config.yaml", "args.py", "--set", "PLY", "npy", "npz", "features", "poses", "blinks", "dataset.json",
         "report.json", "tracking.npz", "features.npy", "audio.wav", "manifest.json", "config of a run",
         "metrics.jsonl", "state.json", "head.safetensors", "trainer.pt", "prior")


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_of_files_raises_nothing_but_its_own_errors(name, parsers):
    parser = parsers[name]()
    common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))

    def explore(**options: Any) -> None:
        @settings(**common, **options)
        @given(parser.inputs)
        def once(content: Any) -> None:
            check(parser, content)

        once()

    if not SECONDS:
        explore(max_examples=parser.examples, derandomize=True, phases=(Phase.explicit, Phase.generate))
        return
    end = time.monotonic() + SECONDS / len(NAMES)
    while time.monotonic() < end:
        explore(max_examples=300)
