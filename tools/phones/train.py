"""Train the built-in speech encoder.

    python tools/phones/train.py DATA.npz egstalker_nb/speech/weights/phones.safetensors

DATA.npz: from features.py. Needs torch, numpy and safetensors only. Takes about two minutes on one H100, hours on a
CPU. Prints the accuracy on the held-out sounds.
"""
from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augmentation import disturbed, masked
from features import LOWEST, STEP, UNKNOWN, load
from safetensors.torch import save_file
from torch import Tensor

from egstalker_nb.speech.phones import CLASSES, PhoneNet, level_and_mean, normalised

BATCH = 128
CROP = 320                     # steps of 10 ms
OVERHANG = 60                  # steps of silence a crop may have after its sound
SILENCE = -18.0                # natural log of power there
RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 200, 0.02
SMOOTHING = 0.05               # of the labels: their times are sharper than what a mouth does
TEACHER_FROM = 0.4             # share of the steps after which real speech counts
TEACHER_WEIGHT = 0.5
TEACHER_SHARPNESS = 1.4        # the teacher's logits times this
AVERAGE = 0.999                # of the weights, per step: the teacher, and what is saved


class Sounds:
    """Some of the sounds of a data file, on a device. codes: uint8 [T, 40], labels: uint8 [T], both joined."""

    def __init__(self, codes: np.ndarray, labels: np.ndarray, lengths: np.ndarray, chosen: np.ndarray,
                 device: torch.device):
        rows = torch.from_numpy(np.repeat(chosen, lengths))
        self.codes, self.labels = (torch.from_numpy(x)[rows].to(device) for x in (codes, labels))
        self.lengths = torch.from_numpy(lengths[chosen].astype(np.int64)).to(device)
        self.begins = self.lengths.cumsum(0) - self.lengths

    def crops(self, count: int) -> tuple[Tensor, Tensor]:
        """Log power [count, 320, 40] and classes [count, 320] of parts drawn from all sounds."""
        device = self.codes.device
        sound = torch.randint(len(self.lengths), (count,), device=device)
        room = (self.lengths[sound] - CROP + OVERHANG).clamp_min(1)
        at = (torch.rand(count, device=device) * room).long()[:, None] + torch.arange(CROP, device=device)
        inside = at < self.lengths[sound][:, None]
        rows = (self.begins[sound][:, None] + at).clamp_max(len(self.codes) - 1)
        log = torch.where(inside[..., None], decoded(self.codes[rows]), SILENCE)
        return log, torch.where(inside, self.labels[rows].long(), 0)

    def __iter__(self):
        """Log power [T, 40] and classes [T] of each whole sound, T even."""
        for begin, length in zip(self.begins.tolist(), self.lengths.tolist()):
            rows = slice(begin, begin + length // 2 * 2)
            yield decoded(self.codes[rows]), self.labels[rows].long()


def decoded(codes: Tensor) -> Tensor:
    return codes.float() * STEP + LOWEST


def seen(log: Tensor) -> Tensor:
    """What the network sees of log power [..., T, 40]: [..., T, 41]."""
    return normalised(log, *level_and_mean(log))


def targets(labels: Tensor) -> Tensor:
    """Classes [B, 2T] at 100 Hz -> the share of each in the 40 ms around every step of 20 ms, smoothed: [B, T, 29]."""
    share = F.one_hot(labels, len(CLASSES)).float().transpose(1, 2)
    share = F.avg_pool1d(F.pad(share, (2, 2), mode="replicate"), 4, 2)[..., :labels.shape[1] // 2].transpose(1, 2)
    return share * (1 - SMOOTHING) + SMOOTHING / len(CLASSES)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()


@torch.no_grad()
def accuracy(net: PhoneNet, sounds: Sounds) -> float:
    """Share of the steps whose likeliest class is the one spoken at their time; whole sounds, undisturbed."""
    right, total = 0, 0
    for log, labels in sounds:
        found = net(seen(log)[None])[0].argmax(-1)
        right += int((found == labels[::2]).sum())
        total += len(found)
    return right / total


def train(spoken: Sounds, real: Sounds, held_out: Sounds, steps: int, device: torch.device) -> PhoneNet:
    """The averaged network after so many steps.

    Synthesised speech teaches the phones. Once the average is good, it teaches the network what it hears in undisturbed
    real speech, which the network itself hears disturbed (a mean teacher: Tarvainen and Valpola, 2017).
    """
    net = PhoneNet().to(device)
    average = copy.deepcopy(net).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(net, average, spoken, real if step > TEACHER_FROM * steps else None)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(AVERAGE, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - keep)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {loss.item():.3f}, held-out accuracy {accuracy(average, held_out):.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)
    return average


def loss_of(net: PhoneNet, average: PhoneNet, spoken: Sounds, real: Sounds | None) -> Tensor:
    with torch.no_grad():
        log, labels = spoken.crops(BATCH)
        heard, target = masked(seen(disturbed(log))), targets(labels)
        if real is not None:
            log, _ = real.crops(BATCH // 2)
            taught = (average(seen(log)) * TEACHER_SHARPNESS).softmax(-1)
            heard_real = masked(seen(disturbed(log)))
    with torch.autocast(heard.device.type, torch.bfloat16, enabled=heard.is_cuda):
        loss = cross_entropy(net(heard), target)
        if real is not None:
            loss = loss + TEACHER_WEIGHT * cross_entropy(net(heard_real), taught)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="the .safetensors that is written (float16)")
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    codes, labels, lengths, held = load(args.data)
    known = labels[np.cumsum(lengths) - lengths] != UNKNOWN
    spoken, real, held_out = (Sounds(codes, labels, lengths, chosen, device)
                              for chosen in (known & ~held, ~known, held))
    net = train(spoken, real, held_out, args.steps, device)
    save_file({name: value.half().contiguous() for name, value in net.cpu().state_dict().items()}, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
