"""Train the phone encoder.

    python tools/phones/train.py DATA.npz egstalker_nb/speech/weights/phones.safetensors

DATA.npz: from features.py. Needs torch, numpy and safetensors only. Takes about two minutes on one H100, hours on a
CPU. Prints the accuracy on the held-out utterances.
"""
from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from augmentation import augmented, masked
from features import MIN_LOG_POWER, QUANTUM, UNKNOWN, load
from safetensors.torch import save_file
from torch import Tensor

from egstalker_nb.speech.phones import CLASSES, PhoneNet, level_and_mean, normalised

BATCH = 128
CROP = 320                     # steps of 10 ms
MAX_PADDING = 60               # steps of silence after the utterance in a crop
SILENCE = -18.0                # natural log of power of the padding
RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 200, 0.02
SMOOTHING = 0.05               # of the labels
TEACHER_FROM = 0.4             # fraction of the steps after which real speech is used
TEACHER_WEIGHT = 0.5
TEACHER_SHARPNESS = 1.4        # factor of the teacher's logits
EMA_DECAY = 0.999              # per step, of the averaged weights: the teacher, and the network that is saved


class Utterances:
    """A subset of the utterances of a data file, on a device.

    Args:
        codes: [T, 40] uint8, all utterances concatenated.
        labels: [T] uint8.
        lengths: [N] steps of each utterance.
        chosen: [N] bool, the subset.
        device: of the tensors.
    """

    def __init__(self, codes: np.ndarray, labels: np.ndarray, lengths: np.ndarray, chosen: np.ndarray,
                 device: torch.device):
        rows = torch.from_numpy(np.repeat(chosen, lengths))
        self.codes, self.labels = (torch.from_numpy(x)[rows].to(device) for x in (codes, labels))
        self.lengths = torch.from_numpy(lengths[chosen].astype(np.int64)).to(device)
        self.begins = self.lengths.cumsum(0) - self.lengths

    def crops(self, count: int) -> tuple[Tensor, Tensor]:
        """Random crops: log power [count, 320, 40] and classes [count, 320]."""
        device = self.codes.device
        chosen = torch.randint(len(self.lengths), (count,), device=device)
        positions = (self.lengths[chosen] - CROP + MAX_PADDING).clamp_min(1)
        at = (torch.rand(count, device=device) * positions).long()[:, None] + torch.arange(CROP, device=device)
        inside = at < self.lengths[chosen][:, None]
        rows = (self.begins[chosen][:, None] + at).clamp_max(len(self.codes) - 1)
        log = torch.where(inside[..., None], decoded(self.codes[rows]), SILENCE)
        return log, torch.where(inside, self.labels[rows].long(), 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Log power [T, 40] and classes [T] of each utterance, T even."""
        for begin, length in zip(self.begins.tolist(), self.lengths.tolist()):
            rows = slice(begin, begin + length // 2 * 2)
            yield decoded(self.codes[rows]), self.labels[rows].long()


def decoded(codes: Tensor) -> Tensor:
    """Log power of codes; see `features.coded`."""
    return codes.float() * QUANTUM + MIN_LOG_POWER


def inputs_of(log: Tensor) -> Tensor:
    """Input of the network, log power [..., T, 40] -> [..., T, 41]."""
    return normalised(log, *level_and_mean(log))


def targets(labels: Tensor) -> Tensor:
    """Classes [B, 2T] at 100 Hz -> their smoothed fractions in the 40 ms around every step of 20 ms, [B, T, 29]."""
    share = F.one_hot(labels, len(CLASSES)).float().transpose(1, 2)
    share = F.avg_pool1d(F.pad(share, (2, 2), mode="replicate"), 4, 2)[..., :labels.shape[1] // 2].transpose(1, 2)
    return share * (1 - SMOOTHING) + SMOOTHING / len(CLASSES)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy with soft targets."""
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()


@torch.no_grad()
def accuracy(net: PhoneNet, utterances: Utterances) -> float:
    """Fraction of the steps whose most probable class is the label; whole utterances, without augmentation."""
    correct, total = 0, 0
    for log, labels in utterances:
        found = net(inputs_of(log)[None])[0].argmax(-1)
        correct += int((found == labels[::2]).sum())
        total += len(found)
    return correct / total


def train(spoken: Utterances, real: Utterances, held_out: Utterances, steps: int, device: torch.device) -> PhoneNet:
    """Train the network; returns its exponential moving average.

    The labels of synthesised speech are learned with supervision. Later, the averaged network also serves as a mean
    teacher (Tarvainen and Valpola, 2017): its outputs for real speech without augmentation are the targets of the
    network's outputs with augmentation.
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
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {loss.item():.3f}, held-out accuracy {accuracy(average, held_out):.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)
    return average


def loss_of(net: PhoneNet, average: PhoneNet, spoken: Utterances, real: Utterances | None) -> Tensor:
    """The loss of one batch; real: None before the mean teacher is used."""
    with torch.no_grad():
        log, labels = spoken.crops(BATCH)
        inputs, target = masked(inputs_of(augmented(log))), targets(labels)
        if real is not None:
            log, _ = real.crops(BATCH // 2)
            teacher = (average(inputs_of(log)) * TEACHER_SHARPNESS).softmax(-1)
            real_inputs = masked(inputs_of(augmented(log)))
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        loss = cross_entropy(net(inputs), target)
        if real is not None:
            loss = loss + TEACHER_WEIGHT * cross_entropy(net(real_inputs), teacher)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="the .safetensors file to write (float16)")
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    codes, labels, lengths, held = load(args.data)
    known = labels[np.cumsum(lengths) - lengths] != UNKNOWN
    spoken, real, held_out = (Utterances(codes, labels, lengths, chosen, device)
                              for chosen in (known & ~held, ~known, held))
    net = train(spoken, real, held_out, args.steps, device)
    save_file({name: value.half().contiguous() for name, value in net.cpu().state_dict().items()}, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
