"""Command line: one subcommand for each public function. `python -m egstalker_nb` is the same as `egs`."""
from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from .core.errors import ConfigError, EgsError, SweepError, Terminated
from .core.reading import Unreadable, parse_yaml, shown
from .preparation.people import FACES
from .preparation.shots import SCENES
from .speech.encoders import BUILT_IN, DEFAULT_ENCODER

SPLITS = ("train", "val", "all")


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["iterations=200", "seed=1"]` -> `{"iterations": 200, "seed": 1}`.

    Args:
        pairs: `key=value`; values are read as YAML, never evaluated.

    Raises:
        ConfigError: a pair without `=`, or a value that is not YAML.
    """
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError("settings as key=value", shown(pair), "For instance: --set iterations=200")
        try:
            values[key.strip()] = parse_yaml(text)
        except Unreadable as error:
            raise ConfigError("settings as key=value", f"{shown(pair)} ({error})",
                              "Write the value as in a YAML file.") from error
    return values


def rate_or_name(text: str) -> float | str:
    """`"17"` -> 17.0; `"dataset"` and paths stay strings."""
    try:
        return float(text)
    except ValueError:
        return text


def prepare(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    from .preparation.account import account_text

    dataset = egs.prepare(args.video, args.out, size=args.size, features=args.features, encoder=args.encoder,
                          face=args.face, scenes=args.scenes, track=args.track)
    for warning in dataset.report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if "account" in dataset.report:  # datasets of earlier versions have none
        print(account_text(dataset.report["account"]))
    print(dataset)


def train(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    config = egs.load_config(args.config, **parse_settings(args.set))
    print(egs.train(egs.load_dataset(args.dataset), config, args.run, until=args.until, device=args.device,
                    gpus=args.gpus))


def prior(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    found = egs.fit_prior([egs.load_dataset(folder) for folder in args.datasets], args.out, args.seed)
    r = ", ".join(f"{x:.2f}" for x in found.facts["cross_validated_r"])
    print(f"{args.out}: {found.facts['speakers']} speakers, {found.facts['seconds']} s; correlation of each component "
          f"on speakers left out: {r}\nUse it with: egs train DATASET RUN --set prior={args.out}")


def render(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.render(egs.load_run(args.run), args.audio, batch=args.batch, workers=args.workers, **_script(args)))


def replay(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.replay(egs.load_run(args.run), args.split, args.out, args.compare, args.iteration, args.start,
                     args.duration, args.batch, args.device))


def export(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    run, given = egs.load_run(args.run), _script(args)
    print(egs.export_ply(run, args.audio, **given) if args.format == "ply" else
          egs.export_frames(run, args.audio, format=args.format, **given))


def evaluate(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.evaluate(egs.load_run(args.run), split=args.split, device=args.device))


def trim(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(*egs.trim(args.wav, args.features, args.start, args.duration, args.out), sep="\n")


def run(args: argparse.Namespace) -> None:
    from .scheduling.runner import run_notebooks

    given = {"features": args.features, "audio_features": args.audio_features}
    given = {name: str(path.resolve()) for name, path in given.items() if path is not None}
    if args.encoder is not None:  # notebooks run in another folder
        given["encoder"] = str(Path(args.encoder).resolve()) if Path(args.encoder).is_dir() else args.encoder
    run_notebooks(args.video, args.config, audio=args.audio, name=args.name, out=args.out, size=args.size,
                  overrides=parse_settings(args.set), device=args.device, face=args.face, scenes=args.scenes,
                  track=args.track, **given)


def gallery(args: argparse.Namespace) -> None:
    from .notebook.gallery.website import export

    print(export(args.outputs, args.out))


def sweep(args: argparse.Namespace) -> None:
    from .scheduling.live_table import show_live
    from .scheduling.sweep import load_sweep

    found = load_sweep(args.file, args.out)
    for name in args.stop:
        found.stop(name)
    for name in args.resume:
        found.resume(name)
    if args.plan:
        print(found.plan())
    elif args.stop or args.resume or args.show:
        print(found.table(args.sort, args.only))
    else:
        with show_live(found, args.sort, args.only):
            found.run(args.address)
        print(found.closing(), flush=True)
        if found.failures().rows:
            raise SweepError(f"all {len(found.runs)} runs of '{found.name}' to finish", found.summary(),
                             "See the table above; the same command continues the failed ones.")


def setup_gpu(args: argparse.Namespace) -> None:
    from .cuda_setup import setup_gpu

    print(setup_gpu() or "no NVIDIA GPU with a driver: training and rendering use the CPU")


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", default="production", help="preset or YAML file")
    sub.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
                     help="settings that override the file's (last on the line, or before another option)")


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", help="cpu or cuda; default: cuda where available")


def _add_clip(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--face", default="largest", choices=FACES,
                     help="which of several people in view (left and right as the viewer sees them)")
    sub.add_argument("--scenes", default="longest", choices=SCENES,
                     help="which part of a video with cuts: the longest shot that shows a face, or all of it")
    sub.add_argument("--track", type=int, help="number of the audio track, from 1; default: the one flagged as default")


def _add_script(sub: argparse.ArgumentParser, out: str) -> None:
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy [num_frames, 16, 29] of the audio")
    sub.add_argument("--poses", default="cycle", help="cycle, static, orbit, the folder of a dataset whose head "
                                                      "motion to use, or world-to-camera matrices .npy [F, 4, 4]")
    sub.add_argument("--blink", type=rate_or_name, default="dataset",
                     help="dataset, blinks per minute, or an .npy [F] of 0 open ... 1 closed")
    _add_part(sub, out)


def _add_part(sub: argparse.ArgumentParser, out: str) -> None:
    sub.add_argument("--out", type=Path, help=out)
    sub.add_argument("--iteration", type=int, help="checkpoint; default: the newest")
    sub.add_argument("--start", type=float, default=0.0, help="seconds into the audio")
    sub.add_argument("--duration", type=float, help="seconds; default: to the end of the audio")


def _script(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the options of `_add_script` and `_add_device`, as arguments of `egs.render` and of the exports."""
    names = ("out", "features", "poses", "blink", "iteration", "start", "duration", "device")
    return {name: getattr(args, name) for name in names}


def _add_training_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(prepare, "Turn a video into a dataset folder.", "video", "out")
    sub.add_argument("--size", type=int, default=512, help="side of the square frames, px")
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy of the video's own audio")
    sub.add_argument("--encoder", default=DEFAULT_ENCODER,
                     help=f"audio feature extractor: {', '.join(BUILT_IN)}, or a CTC model's folder or hub id")
    _add_clip(sub)

    sub = command(train, "Train a head, or resume the run in the run folder.", "dataset", "run")
    _add_config(sub)
    sub.add_argument("--until", choices=["coarse"], help="stop after this stage")
    sub.add_argument("--gpus", type=int, default=1, help="GPUs that share each batch; batch_size: a multiple of it")
    _add_device(sub)


def _add_head_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(render, "Drive a trained head with audio and write a video.", "run")
    sub.add_argument("--audio", type=Path, required=True, help="WAV, MP3, FLAC or a video with audio")
    _add_script(sub, "the MP4 to write; default: in the run folder")
    sub.add_argument("--batch", type=int, default=8, help="frames rendered together")
    sub.add_argument("--workers", type=int, default=1,
                     help="processes that render parts of a long video at a time, on the Ray cluster of the "
                          "environment variable RAY_ADDRESS or on this machine")
    _add_device(sub)

    sub = command(replay, "Render the frames of the clip that a head was trained on, with their own audio.", "run")
    sub.add_argument("--split", choices=SPLITS, default="val", help="which frames")
    sub.add_argument("--compare", action="store_true", help="side by side with the ground truth")
    _add_part(sub, "the MP4 to write; default: in the run folder")
    sub.add_argument("--batch", type=int, default=8, help="frames rendered together")
    _add_device(sub)

    sub = command(export, "Drive a trained head and write images or deformed Gaussians, one file per frame.", "run",
                  "audio")
    sub.add_argument("--format", choices=["png", "jpeg", "ply"], default="png", help="file format")
    _add_script(sub, "the folder to write; default: in the run folder")
    _add_device(sub)

    sub = command(evaluate, "Score a trained head against its clip.", "run")
    sub.add_argument("--split", choices=SPLITS, default="val", help="frames to score")
    _add_device(sub)

    sub = command(trim, "Trim a WAV and its audio features together.", "wav", "features")
    sub.add_argument("--start", type=float, default=0.0, help="seconds")
    sub.add_argument("--duration", type=float, required=True, help="seconds")
    sub.add_argument("--out", type=Path, required=True, help="path of the trimmed files, without extension")


def _add_other_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(run, "Run all notebooks headless on a video.", "video")
    _add_config(sub)
    sub.add_argument("--audio", type=Path, help="audio that drives the head; default: the clip's own")
    sub.add_argument("--encoder", help="audio feature extractor, see `egs prepare`")
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy of the video's own audio")
    sub.add_argument("--audio-features", type=Path, help="precomputed audio features .npy of --audio")
    sub.add_argument("--name", help="name of the folders data/NAME and outputs/NAME; default: that of the video")
    sub.add_argument("--size", type=int, default=512, help="side of the square frames, px")
    sub.add_argument("--out", type=Path, help="folder of the results; default: outputs/NAME")
    _add_clip(sub)
    _add_device(sub)

    sub = command(prior, "Fit a speaker prior, which predicts the mouth from audio, to clips of many people.")
    sub.add_argument("datasets", type=Path, nargs="+", help="prepared datasets, one for each speaker")
    sub.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    sub.add_argument("--seed", type=int, default=0)

    sub = command(sweep, "Run many notebooks from a sweep file, on this computer or a Ray cluster.", "file")
    sub.add_argument("--out", help="folder of the sweep, also in an object store (s3://, gs://); default: outputs/NAME")
    sub.add_argument("--address", help="of a Ray cluster; default: RAY_ADDRESS, else this computer alone")
    sub.add_argument("--plan", action="store_true", help="list the runs, and run nothing")
    sub.add_argument("--show", action="store_true", help="print the table of the runs now, and run nothing")
    sub.add_argument("--sort", default="", metavar="COLUMN", help="for instance val_psnr; -val_psnr: the highest first")
    sub.add_argument("--only", default="", metavar="TEXT", help="rows that contain this, for instance running")
    sub.add_argument("--stop", action="extend", nargs="+", default=[], metavar="RUN", help="stop these runs in order")
    sub.add_argument("--resume", action="extend", nargs="+", default=[], metavar="RUN",
                     help="let these stopped runs continue with the next call")

    sub = command(gallery, "Build a web site from all executed notebooks.")
    sub.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder with NAME/notebooks for each run")
    sub.add_argument("--out", type=Path, help="the folder to write; default: OUTPUTS/gallery")

    command(setup_gpu, "Build gsplat's CUDA extension, once, and check it; no CUDA toolkit is needed.")


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each is named after its function here."""
    top = argparse.ArgumentParser(prog="egs", description="Audio-driven 3D Gaussian talking heads.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(function: Any, about: str, *positional: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__.replace("_", "-"), help=about, description=about,
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(function=function)
        for name in positional:
            sub.add_argument(name, type=Path)
        return sub

    _add_training_commands(command)
    _add_head_commands(command)
    _add_other_commands(command)
    return top


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM, with which schedulers end programs, raises an exception, so that nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal received
        received = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    except KeyboardInterrupt as stop:
        if received and not isinstance(stop, Terminated):  # Ray's compiled code raises a plain one in its place
            raise Terminated(*stop.args) from stop
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        the exit status: 0; 2 after an `EgsError`, 130 after Ctrl-C, 143 after SIGTERM, each with one line on stderr.
        Other exceptions propagate.
    """
    args = parser().parse_args(argv)
    try:
        with _ending_in_order():
            args.function(args)
    except EgsError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt as stop:
        _say(f"interrupted: {str(stop) or 'the same command continues from what is finished'}")
        return 143 if isinstance(stop, Terminated) else 130
    return 0


def _say(line: str) -> None:
    with suppress(OSError):  # a log on the full disk that the line tells of
        print(line, file=sys.stderr, flush=True)
