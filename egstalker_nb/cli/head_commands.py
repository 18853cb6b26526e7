"""`render`, `replay`, `export`, `export-gaussians`, `export-web`, `evaluate`, `score`, `trim`: what is done with a
trained head."""
from __future__ import annotations

import argparse
from pathlib import Path

from .options import SPLITS, AddCommand, add_device, add_part, add_script, script


def render(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.render(egs.load_run(args.run), args.audio, batch=args.batch, workers=args.workers,
                     background=args.background, aspect=args.aspect, source=args.source, **script(args)))


def replay(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.replay(egs.load_run(args.run), args.split, args.out, args.compare, args.iteration, args.start,
                     args.duration, args.batch, args.device))


def export(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.export_frames(egs.load_run(args.run), args.audio, format=args.format, background=args.background,
                            **script(args)))


def export_gaussians(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.export_gaussians(egs.load_run(args.run), args.out, args.iteration))


def export_web(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.export_web(egs.load_run(args.run), args.out, args.iteration, args.title, args.device))


def evaluate(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.evaluate(egs.load_run(args.run), split=args.split, device=args.device))


def score(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.score(args.video, args.reference, args.weights, args.au, args.device))


def trim(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(*egs.trim(args.wav, args.features, args.start, args.duration, args.out), sep="\n")


def add_commands(command: AddCommand) -> None:
    sub = command(render, "Drive a trained head with audio and write a video.", "run")
    sub.add_argument("--audio", type=Path, required=True, help="WAV, MP3, FLAC or a video with audio")
    add_script(sub, "the MP4 to write, or a .mov or .webm with alpha; default: in the run folder")
    sub.add_argument("--background", default="clip",
                     help="clip, transparent, a colour (white, #00ff00), the path of a picture or "
                          "video, or source: the full frames of the video that the clip was prepared from")
    sub.add_argument("--source", type=Path, help="that video, if it was moved")
    sub.add_argument("--aspect", help="WIDTH:HEIGHT of the video, such as 9:16, around the head")
    sub.add_argument("--batch", type=int, default=8, help="frames rendered together")
    sub.add_argument("--workers", type=int, default=1,
                     help="processes that render parts of a long video at a time, on the Ray cluster of the "
                          "environment variable RAY_ADDRESS or on this machine")
    add_device(sub)

    sub = command(replay, "Render the frames of the clip that a head was trained on, with their own audio.", "run")
    sub.add_argument("--split", choices=SPLITS, default="val", help="which frames")
    sub.add_argument("--compare", action="store_true", help="side by side with the ground truth")
    add_part(sub, "the MP4 to write; default: in the run folder")
    sub.add_argument("--batch", type=int, default=8, help="frames rendered together")
    add_device(sub)

    sub = command(export, "Drive a trained head and write images or deformed Gaussians, one file per frame.", "run",
                  "audio")
    sub.add_argument("--format", choices=["png", "jpeg", "ply", "spz"], default="png", help="file format")
    add_script(sub, "the folder to write; default: in the run folder")
    sub.add_argument("--background", default="clip",
                     help="clip, transparent (PNG only), a colour (white, #00ff00), or the path of a picture or video")
    add_device(sub)

    sub = command(export_gaussians, "Write the canonical Gaussians of a trained head as one .ply or .spz.", "run",
                  "out")
    sub.add_argument("--iteration", type=int, help="checkpoint; default: the newest")

    sub = command(export_web, "Write a trained head as one HTML file that speaks what one says to it.", "run", "out")
    sub.add_argument("--title", help="of the page; default: the name of the run")
    sub.add_argument("--iteration", type=int, help="checkpoint; default: the newest")
    add_device(sub)

    sub = command(evaluate, "Score a trained head against its clip.", "run")
    sub.add_argument("--split", choices=SPLITS, default="val", help="frames to score")
    add_device(sub)

    sub = command(score, "Score any video against the real one, with the metrics that papers report.", "video",
                  "reference")
    sub.add_argument("--weights", type=Path, help="folder of the weights of LPIPS, CSIM and SyncNet; default: "
                                                  "PyTorch's hub cache")
    sub.add_argument("--au", type=Path, nargs=2, metavar=("VIDEO_CSV", "REFERENCE_CSV"),
                     help="OpenFace's CSVs of both, for its action-unit errors")
    add_device(sub)

    sub = command(trim, "Trim a WAV and its audio features together.", "wav", "features")
    sub.add_argument("--start", type=float, default=0.0, help="seconds")
    sub.add_argument("--duration", type=float, required=True, help="seconds")
    sub.add_argument("--out", type=Path, required=True, help="path of the trimmed files, without extension")
