"""What an NVIDIA card needs is found, built once and checked, or missed in one clear line; all without a card."""
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import cli, cuda_setup
from egstalker_nb.core import cuda_extension
from egstalker_nb.core.device import rendering_device
from egstalker_nb.core.errors import InputError
from egstalker_nb.scheduling import execute, runner

ROOT = Path(__file__).resolve().parents[1]
DRIVER = cuda_setup.Driver((13, 0), (cuda_setup.Card("Some Card", (8, 6)),))


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A machine with a card, its driver, a CUDA build of torch and every tool; the environment is `tmp_path`."""
    monkeypatch.setattr(cuda_setup, "find_driver", lambda: DRIVER)
    monkeypatch.setattr(runner, "find_driver", lambda: DRIVER)
    for module in (cuda_setup, cuda_extension):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "share")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, value in dict(is_available=True, device_count=1, get_arch_list=["sm_75", "sm_86", "sm_90", "sm_120"],
                            get_device_capability=(8, 6), get_device_name="Some Card").items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("c++", "g++", "ninja"):
        (tools / tool).write_text("")
        (tools / tool).chmod(0o755)
    for variable in ("CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cuda_setup, "_search_path", lambda: str(tools))
    monkeypatch.setenv("PATH", str(tools))
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    monkeypatch.setattr(cuda_setup.sysconfig, "get_path", lambda name: str(tmp_path / "include"))
    monkeypatch.delitem(sys.modules, cuda_extension.GSPLAT_MODULE, raising=False)
    return tmp_path


@pytest.fixture
def builds(card, monkeypatch):
    """What is compiled: a list of the architectures of each build. The extension is a module that anyone can load."""
    done = []

    def build(toolkit, architectures, work):
        done.append(architectures)
        (work / "built").write_text("answer = 42\n")
        return work / "built"

    monkeypatch.setattr(cuda_setup, "installed_toolkit", lambda cuda: Path("/toolkit"))
    monkeypatch.setattr(cuda_setup, "_build", build)
    monkeypatch.setattr(cuda_setup, "check_rendering", lambda extension: 1e-6)
    return done


def said(capsys) -> tuple[list[str], list[str]]:
    """Lines of a set-up that must not fail: on stdout, on stderr."""
    assert cuda_setup.main() == 0
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_without_a_card_nothing_is_said_or_done():
    """Protects most machines: no word, and torch is not even imported."""
    code = ("import ctypes, sys\nfrom egstalker_nb import cuda_setup\n"
            "def none(name): raise OSError\n"
            "ctypes.CDLL = none\ncuda_setup.main()\nassert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_built_once_and_for_each_new_kind_of_card(builds, capsys, monkeypatch):
    """A second `make setup` must be quick, and a card of another kind needs code of its own."""
    out, err = said(capsys)
    assert "ready" in out[-1] and not err
    assert said(capsys) == (["Some Card: gsplat's CUDA extension is ready"], [])
    assert builds == ["8.6+PTX"]
    other = cuda_setup.Driver((13, 0), (cuda_setup.Card("Other Card", (9, 0)),))  # a home folder of two machines
    monkeypatch.setattr(cuda_setup, "find_driver", lambda: other)
    said(capsys), said(capsys)
    assert builds[1:] == ["8.6;9.0+PTX"]


def test_a_card_newer_or_older_than_torch(builds, capsys, monkeypatch):
    """A newer card takes the newest code as PTX; one that torch no longer supports is left out, and not tried again."""
    cards = (cuda_setup.Card("New", (12, 1)), cuda_setup.Card("Old", (5, 2)))
    monkeypatch.setattr(cuda_setup, "find_driver", lambda: cuda_setup.Driver((13, 1), cards))
    said(capsys), said(capsys)
    assert builds == ["12.0+PTX"]


def test_it_is_built_for_cards_that_are_not_here(builds, capsys, monkeypatch):
    """As a container image is: no driver, no test image; the card that it meets later finds it ready."""
    monkeypatch.setattr(cuda_setup, "find_driver", lambda: None)
    monkeypatch.setattr(cuda_setup, "check_rendering", None)
    assert cli.main(["setup-gpu", "--build-for", "9.0", "8.6"]) == cli.main(["setup-gpu", "--build-for", "8.6"]) == 0
    assert builds == ["8.6;9.0+PTX"]
    monkeypatch.setattr(cuda_setup, "find_driver", lambda: DRIVER)
    assert said(capsys)[0][-1] == "Some Card: gsplat's CUDA extension is ready" and len(builds) == 1
    assert cli.main(["setup-gpu", "--build-for", "5.2"]) == 2 and "7.5 or more" in capsys.readouterr().err
    assert cli.main(["setup-gpu", "--build-for", "RTX 4090"]) == 2 and "such as 8.6" in capsys.readouterr().err


def test_another_torch_is_built_for_anew(builds, capsys, monkeypatch):
    """An extension of another torch crashes or is not found; it must never be taken for this one's."""
    said(capsys)
    version = cuda_extension.importlib.metadata.version
    monkeypatch.setattr(cuda_extension.importlib.metadata, "version",
                        lambda name: "99.0" if name == "torch" else version(name))
    assert not cuda_extension.built_for()
    said(capsys)
    assert len(builds) == 2


def test_nothing_is_kept_of_a_build_that_renders_wrongly(builds, capsys, monkeypatch):
    """Protects renders: what was not checked on the card is not used."""
    def wrong(extension):
        raise InputError("the same image", "another", "Update the driver.")

    monkeypatch.setattr(cuda_setup, "check_rendering", wrong)
    out, err = said(capsys)
    assert len(err) == 1 and "another" in err[0]
    assert not cuda_extension.built_for() and not list(cuda_extension.FOLDER.glob("gsplat*"))


MISSING = {
    "torch without CUDA": (lambda p, m: m.setattr(torch.version, "cuda", None), "without CUDA", "CUDA build"),
    "old driver": (lambda p, m: m.setattr(cuda_setup, "find_driver", lambda: cuda_setup.Driver((12, 4), DRIVER.cards)),
                   "one for CUDA 12.4", "580 or newer"),
    "driver not loaded": (lambda p, m: m.setattr(torch.cuda, "is_available", lambda: False), "is False", "Restart"),
    "old card": (lambda p, m: m.setattr(torch.cuda, "get_arch_list", lambda: ["sm_100", "sm_120"]),
                 "Some Card with 8.6", "10.0 or more"),
    "g++": (lambda p, m: (p / "bin" / "g++").unlink(), "no g++", "Install"),
    "ninja": (lambda p, m: (p / "bin" / "ninja").unlink(), "none", "pip install ninja"),
    "Python.h": (lambda p, m: (p / "include" / "Python.h").unlink(), "no .*Python.h", "-dev"),
    "disk": (lambda p, m: m.setattr(cuda_setup.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29)),
             "0.5 GiB", "Free some space"),
    "nvcc of CUDA 12": (lambda p, m: m.setattr(torch.version, "cuda", "12.8"), "pip has no nvcc", "toolkit 12.8"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_said_in_one_line(card, what, capsys, monkeypatch):
    """People without the card's prerequisites go on with the CPU, knowing what to install."""
    monkeypatch.setattr(cuda_setup, "installed_toolkit", lambda cuda: None)
    spoil, found, fix = MISSING[what]
    spoil(card, monkeypatch)
    out, err = said(capsys)
    assert not out and len(err) == 1, (out, err)
    assert re.search(found, err[0]) and fix in err[0] and "make setup" in err[0]


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A wheel as NVIDIA's are: files under nvidia/cu13, programs among them."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            entry = zipfile.ZipInfo(f"nvidia/cu13/{path}")
            entry.external_attr = (0o100755 if "bin/" in path else 0o100644) << 16
            wheel.writestr(entry, text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_compiler_comes_from_wheels_of_torchs_own_version(card, monkeypatch):
    """Without a toolkit: nvcc of exactly torch's CUDA beside torch's headers and libraries, where gsplat looks."""
    own, wheels = card / "site" / "nvidia" / "cu13", card / "wheels"
    for path in [*(f"include/{name}" for name in cuda_setup.HEADERS), "include/crt/shared.h", "lib/libcudart.so.13"]:
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_text("torch's")
    wheels.mkdir()
    for version in ("13.0.88", "13.1.5", "12.9.1"):
        make_wheel(wheels, "nvidia-cuda-nvcc", version, {"bin/nvcc": f"#!/bin/sh\necho {version}\n"})
        make_wheel(wheels, "nvidia-cuda-crt", version, {"include/crt/shared.h": "the compiler's"})
        make_wheel(wheels, "nvidia-nvvm", version, {"nvvm/bin/cicc": "", "lib/libnvvm.so.4": ""})
        make_wheel(wheels, "nvidia-cuda-cccl", version, {"include/cccl/cub/cub.cuh": ""})
    monkeypatch.setattr(torch, "__file__", str(card / "site" / "torch" / "__init__.py"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_USER", "1")  # a setting that some have, and that pip refuses together with --target
    home = cuda_setup._compiler_from_wheels((13, 0), card)
    assert subprocess.run([home / "bin" / "nvcc"], capture_output=True, text=True).stdout == "13.0.88\n"
    assert (home / "include" / "cuda_runtime.h").read_text() == "torch's"
    assert (home / "include" / "crt" / "shared.h").read_text() == "the compiler's"
    assert (home / "lib64" / "libcudart.so").read_text() == "torch's"
    assert (home / "lib64" / "libnvvm.so.4").is_file() and (home / "nvvm" / "bin" / "cicc").is_file()
    with pytest.raises(InputError, match="nvidia-cuda-nvcc==13.4") as error:
        cuda_setup._compiler_from_wheels((13, 4), card)
    assert "Could not find a version" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("version, headers, fits", [("13.1", True, True), ("12.8", True, False),
                                                    ("13.0", False, False)])
def test_installed_toolkit_is_used_where_it_fits(card, monkeypatch, version, headers, fits):
    """A toolkit of another CUDA builds an extension that crashes; one without headers builds none."""
    home = card / "cuda"
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    for name in cuda_setup.HEADERS if headers else ():
        (home / "include" / name).touch()
    (home / "bin" / "nvcc").write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
    (home / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(home / "bin"))
    assert (cuda_setup.installed_toolkit((13, 0)) == home) == fits


def test_a_failed_build_says_why_and_where(card, monkeypatch):
    """Compilers write pages: the first error, and the whole in a file."""
    log = "[1/2] nvcc a.cu\nhost_config.h: error: #error -- unsupported GNU version! gcc 99\nninja: build stopped"
    (cuda_extension.FOLDER).mkdir()
    monkeypatch.setattr(cuda_setup.sys, "executable", str(card / "python"))
    (card / "python").write_text(f"#!/bin/sh\nprintf '%s' '{log}'\nexit 1\n")
    (card / "python").chmod(0o755)
    with pytest.raises(InputError, match="unsupported GNU version! gcc 99") as error:
        cuda_setup._build(card / "cuda", "8.6+PTX", card)
    kept = cuda_extension.FOLDER / "build.log"
    assert str(kept) in str(error.value) and kept.read_text() == log


def test_extension_is_what_gsplat_finds(builds, capsys):
    """gsplat must take the built one, without a compiler: it looks for `gsplat.csrc` before it compiles."""
    with pytest.raises(InputError, match="make setup"):
        cuda_extension.load_extension()
    said(capsys)
    cuda_extension.extension_file().rename(cuda_extension.extension_file().with_suffix(".py"))
    cuda_extension.load_file(cuda_extension.extension_file().with_suffix(".py"))
    from gsplat import csrc

    assert csrc.answer == 42
    cuda_extension.load_extension()


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    """A run of a few steps on the CPU."""
    cfg = egs.load_config("quick_test", iterations=20, coarse_iterations=10)
    return egs.train(tiny_dataset, cfg, tmp_path_factory.mktemp("made") / "run", device="cpu")


COMMANDS = {
    "train": lambda run, device: egs.train(run.dataset, run.config, run.root.parent / "new", device=device),
    "render": lambda run, device: egs.render(run, audio="no.wav", device=device),
    "replay": lambda run, device: egs.replay(run, device=device),
    "evaluate": lambda run, device: egs.evaluate(run, device=device),
    "stream": lambda run, device: egs.stream(run, [], device=device),
    "export_frames": lambda run, device: egs.export_frames(run, "no.wav", device=device),
    "export_ply": lambda run, device: egs.export_ply(run, "no.wav", device=device),
    "sync_score": lambda run, device: egs.sync_score(run, device=device),
    "run": lambda run, device: runner.run_notebooks("no.mp4", "quick_test", device=device),
}


@pytest.mark.parametrize("device", [None, "cuda"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_renders_checks_the_card_first(run, card, command, device):
    """Minutes of work ended in an AttributeError: before anything else one error, and no silent use of the CPU."""
    with pytest.raises(InputError) as error:
        COMMANDS[command](run, device)
    for word in ("gsplat's CUDA extension", "Some Card", "none in", "make setup", "egs setup-gpu", 'device="cpu"'):
        assert word in str(error.value)
    assert not (run.root.parent / "new").exists()


def test_an_extension_for_another_card_is_not_enough(card, builds, capsys, monkeypatch):
    """A home folder shared by machines: kernels of another card fail when they are launched, minutes later."""
    said(capsys)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.raises(InputError, match="capability 9.0.*found one for capability 8.6"):
        rendering_device()


def test_the_shell_offers_the_cpu(card, run, capsys):
    """What the error offers must be there: `--device cpu` works although the card cannot be used."""
    train = ["train", str(run.dataset.root), str(run.root), "--config", str(run.root / "config.yaml")]
    assert cli.main(train) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--device cpu" in err
    assert cli.main(["evaluate", str(run.root)]) == 2 and cli.main(["evaluate", str(run.root), "--device", "cpu"]) == 0
    assert cli.main([*train, "--device", "cpu"]) == 0
    for command in ("render", "export", "run"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "--device" in capsys.readouterr().out


@pytest.mark.parametrize("device, words", [("gpu", "cpu or cuda"), ("cuda:3", "1 GPU"), ("mps", "device 'mps'")])
def test_a_device_that_is_not_there(card, device, words):
    """Typing errors must not end in torch's own words."""
    with pytest.raises(InputError, match=words):
        rendering_device(device)


def test_cuda_asked_for_where_torch_has_none():
    """Explicit device="cuda" on a machine without: an error, at once."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a card")
    with pytest.raises(InputError, match="device 'cuda'.*cpu"):
        rendering_device("cuda")


def test_notebooks_keep_off_the_card_if_asked(tmp_path, monkeypatch):
    """Their kernels are other processes: the card is hidden from those, and only from those."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for device, expected in ("cpu", ""), (None, None):
        with execute.kernel_environment(tmp_path / "line", tmp_path, device):
            assert execute.os.environ.get("CUDA_VISIBLE_DEVICES") == expected
        assert "CUDA_VISIBLE_DEVICES" not in execute.os.environ
