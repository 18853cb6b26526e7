"""`notebooks`, `run`, `sweep`, `gallery`, `setup-gpu`: the notebooks headless, and what they need."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..core.errors import SweepError
from ..core.kit_files import copy_kit
from .options import AddCommand, add_clip, add_config, add_device, parse_settings


def notebooks(args: argparse.Namespace) -> None:
    written, kept = copy_kit(args.folder)
    print(f"{len(written)} files written to '{args.folder}'"
          + (f"; yours were kept: {', '.join(path.name for path in kept)}" if kept else "")
          + f". Open them: jupyter lab {args.folder / 'notebooks'}")


def run(args: argparse.Namespace) -> None:
    from ..scheduling.runner import run_notebooks

    given = {"features": args.features, "audio_features": args.audio_features}
    given = {name: str(path.resolve()) for name, path in given.items() if path is not None}
    if args.encoder is not None:  # notebooks run in another folder
        given["encoder"] = str(Path(args.encoder).resolve()) if Path(args.encoder).is_dir() else args.encoder
    run_notebooks(args.video, args.config, audio=args.audio, name=args.name, out=args.out, size=args.size,
                  overrides=parse_settings(args.set), device=args.device, face=args.face, scenes=args.scenes,
                  track=args.track, **given)


def sweep(args: argparse.Namespace) -> None:
    from ..scheduling.live_table import show_live
    from ..scheduling.sweep import load_sweep

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


def gallery(args: argparse.Namespace) -> None:
    from ..notebook.gallery.website import export

    print(export(args.outputs, args.out))


def setup_gpu(args: argparse.Namespace) -> None:
    from ..cuda_setup import build_for, setup_gpu

    made = build_for(args.build_for) if args.build_for else setup_gpu()
    print(made or "no NVIDIA GPU with a driver: training and rendering use the CPU")


def add_commands(command: AddCommand) -> None:
    sub = command(notebooks, "Copy the notebooks and the sample into a folder, to open and edit them there.")
    sub.add_argument("folder", type=Path, nargs="?", default=Path("egstalker"),
                     help="files in it are never overwritten")

    sub = command(run, "Run all notebooks headless on a video.", "video")
    add_config(sub)
    sub.add_argument("--audio", type=Path, help="audio that drives the head; default: the clip's own")
    sub.add_argument("--encoder", help="audio feature extractor, see `egs prepare`")
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy of the video's own audio")
    sub.add_argument("--audio-features", type=Path, help="precomputed audio features .npy of --audio")
    sub.add_argument("--name", help="name of the folders data/NAME and outputs/NAME; default: that of the video")
    sub.add_argument("--size", type=int, default=512, help="side of the square frames, px")
    sub.add_argument("--out", type=Path, help="folder of the results; default: outputs/NAME")
    add_clip(sub)
    add_device(sub)

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

    sub = command(setup_gpu, "Build gsplat's CUDA extension, once, and check it; no CUDA toolkit is needed.")
    sub.add_argument("--build-for", nargs="+", default=[], metavar="CAPABILITY",
                     help="for GPUs that are not here, by compute capability (8.6), as for a container image")
