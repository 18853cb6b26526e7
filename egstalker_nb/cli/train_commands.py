"""`prepare`, `config`, `train`, `track`, `prior`: from a video to a head."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..core.files import check_target
from ..speech.encoders import BUILT_IN, DEFAULT_ENCODER
from .options import AddCommand, add_clip, add_config, add_device, parse_settings, size_or_native


def prepare(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    from ..preparation.account import account_text

    dataset = egs.prepare(args.video, args.out, size=args.size, features=args.features, encoder=args.encoder,
                          face=args.face, scenes=args.scenes, track=args.track)
    for warning in dataset.report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if "account" in dataset.report:  # datasets of earlier versions have none
        print(account_text(dataset.report["account"]))
    print(f"the head's crop has {dataset.meta['crop'][2]} px in the video")
    print(dataset)


def config(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    found = egs.read_arguments(args.file)
    print(found.table(), flush=True)
    settings = found.config()
    for problem in found.problems():
        print(f"warning: {problem}", file=sys.stderr)
    if args.out is not None:
        settings.save(check_target(args.out, ".yaml", args.file))
        print(f"{args.out}: use it with egs train DATASET RUN --config {args.out}")


def train(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    config = egs.load_config(args.config, **parse_settings(args.set))
    run = egs.train(egs.load_dataset(args.dataset), config, args.run, until=args.until, device=args.device,
                    gpus=args.gpus)
    print(run, run.plateau(), sep="\n")


def track(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    for run in args.runs:
        print(egs.track(egs.load_run(run), args.to))


def prior(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    found = egs.fit_prior([egs.load_dataset(folder) for folder in args.datasets], args.out, args.seed)
    r = ", ".join(f"{x:.2f}" for x in found.facts["cross_validated_r"])
    print(f"{args.out}: {found.facts['speakers']} speakers, {found.facts['seconds']} s; correlation of each component "
          f"on speakers left out: {r}\nUse it with: egs train DATASET RUN --set prior={args.out}")


def add_commands(command: AddCommand) -> None:
    sub = command(prepare, "Turn a video into a dataset folder.", "video", "out")
    sub.add_argument("--size", type=size_or_native, default=512, metavar="PX",
                     help="side of the square frames, px, or native: that of the head's crop in the video")
    sub.add_argument("--features", type=Path, help="precomputed audio features .npy of the video's own audio")
    sub.add_argument("--encoder", default=DEFAULT_ENCODER,
                     help=f"audio feature extractor: {', '.join(BUILT_IN)}, or a CTC model's folder or hub id")
    add_clip(sub)

    sub = command(config, "Explain an upstream arguments file, setting by setting; save what is taken over.", "file")
    sub.add_argument("--out", type=Path, help="the .yaml file to write: a configuration for `egs train --config`")

    sub = command(train, "Train a head, or resume the run in the run folder.", "dataset", "run")
    add_config(sub)
    sub.add_argument("--until", choices=["coarse"], help="stop after this stage")
    sub.add_argument("--gpus", type=int, default=1, help="GPUs that share each batch; batch_size: a multiple of it")
    add_device(sub)

    sub = command(track, "Show trained runs in a tracker; training does so itself with --set tracking=...")
    sub.add_argument("runs", type=Path, nargs="+", help="run folders")
    sub.add_argument("--to", default="tensorboard", metavar="TRACKER",
                     help="tensorboard, which writes into the run folder; wandb or mlflow, set up as usual")

    sub = command(prior, "Fit a speaker prior, which predicts the mouth from audio, to clips of many people.")
    sub.add_argument("datasets", type=Path, nargs="+", help="prepared datasets, one for each speaker")
    sub.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    sub.add_argument("--seed", type=int, default=0)
