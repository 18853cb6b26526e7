"""Train the phone encoder.

    python tools/phones/train.py DATA.npz egstalker_nb/speech/weights/phones.safetensors

DATA.npz: from features.py. Needs torch, numpy and safetensors only. Takes about 90 s on one H200, hours on a CPU.
Prints the accuracy on the held-out utterances.
"""
from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Iterator, Optional

import numpy as np
import torch
import torch.nn.functional as F
from augmentation import augmented, masked
from features import MIN_LOG_POWER, QUANTUM, UNKNOWN, Data, load
from safetensors.torch import save_file
from teacher import BLANK, TOKENS
from torch import Tensor, nn

from egstalker_nb.speech.phones import CLASSES, WIDTH, PhoneNet, level_and_mean, normalised

BATCH = 128                    # utterances of synthesised speech
REAL_BATCH = 96                # of real speech
CROP = 320                     # steps of 10 ms
MAX_PADDING = 60               # steps of silence after the utterance in a crop
SILENCE = -18.0                # natural log of power of the padding
RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 200, 0.02
SMOOTHING = 0.05               # of the labels
DISTILLATION_WEIGHT = 0.5
SPOKEN_WEIGHT = 2.0            # steps where the recogniser is sure of a phone count 1 + this, since most are blank
MEAN_TEACHER_FROM = 0.4        # fraction of the steps after which the mean teacher is used
MEAN_TEACHER_WEIGHT = 0.5
MEAN_TEACHER_SHARPNESS = 1.4   # factor of its logits
EMA_DECAY = 0.999              # per step, of the averaged weights: the mean teacher, and the network that is saved


class Utterances:
    """A subset of the utterances of a data file, on a device.

    Args:
        data: from features.py.
        chosen: [N] bool, the subset.
        device: of the tensors.
        targets: uint8 [S, 2, 4], every 20 ms of the subset, of real speech; see `teacher.targets`. None: no teacher.
    """

    def __init__(self, data: Data, chosen: np.ndarray, device: torch.device, targets: Optional[np.ndarray] = None):
        rows = torch.from_numpy(np.repeat(chosen, data.lengths))
        self.codes, self.labels = (torch.from_numpy(x)[rows].to(device) for x in (data.codes, data.labels))
        self.lengths = torch.from_numpy(data.lengths[chosen].astype(np.int64)).to(device)
        self.begins = self.lengths.cumsum(0) - self.lengths
        self.targets = None if targets is None else torch.from_numpy(targets).to(device)
        steps = (self.lengths + 1) // 2
        self.target_begins = steps.cumsum(0) - steps

    def crops(self, count: int) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """Random crops; an utterance is drawn with probability proportional to its length.

        Returns:
            Log power [count, 320, 40], classes [count, 320], and the teacher's targets [count, 160, 2, 4], if any.
        """
        device = self.codes.device
        chosen = torch.multinomial(self.lengths.float(), count, replacement=True)
        positions = (self.lengths[chosen] - CROP + MAX_PADDING).clamp_min(1)
        begin = (torch.rand(count, device=device) * positions).long() // 2 * 2  # where a step of 20 ms begins
        at = begin[:, None] + torch.arange(CROP, device=device)
        inside = at < self.lengths[chosen][:, None]
        rows = (self.begins[chosen][:, None] + at).clamp_max(len(self.codes) - 1)
        log = torch.where(inside[..., None], decoded(self.codes[rows]), SILENCE)
        labels = torch.where(inside, self.labels[rows].long(), 0)
        if self.targets is None:
            return log, labels, None
        rows = (self.target_begins[chosen][:, None] + at[:, ::2] // 2).clamp_max(len(self.targets) - 1)
        return log, labels, torch.where(inside[:, ::2, None, None], self.targets[rows], 0)

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


def distillation(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the recogniser's most probable tokens, mean of all steps.

    Args:
        logits: [B, T, 191] of its tokens.
        targets: uint8 [B, T, 2, 4], see `teacher.targets`.
    """
    tokens, probabilities = targets[..., 0, :].long(), targets[..., 1, :].float() / 255
    spoken = (probabilities * (tokens != BLANK)).sum(-1)
    log = logits.float().log_softmax(-1).gather(-1, tokens)
    return -((probabilities * log).sum(-1) * (1 + SPOKEN_WEIGHT * spoken)).mean()


def both_outputs(net: PhoneNet, token_output: nn.Conv1d, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the classes [B, T, 29], and of the recogniser's tokens [B, T, 191] from the same activations."""
    hidden: list[Tensor] = []
    with net.last.register_forward_pre_hook(lambda _, given: hidden.append(given[0])):
        logits = net(inputs)
    return logits, token_output(hidden[0]).transpose(1, 2)


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

    The labels of synthesised speech are learned with supervision. From real speech, a second output, which is thrown
    away, learns the posteriors of a phone recogniser (knowledge distillation, see teacher.py). Later, the averaged
    network also serves as a mean teacher (Tarvainen and Valpola, 2017): its outputs for real speech without
    augmentation are the targets of the network's outputs with augmentation.
    """
    net = PhoneNet().to(device)
    token_output = nn.Conv1d(WIDTH, TOKENS, 1).to(device)
    parameters = [*net.parameters(), *token_output.parameters()]
    average = copy.deepcopy(net).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY)
    began = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(net, token_output, average if step > MEAN_TEACHER_FROM * steps else None, spoken, real)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {loss.item():.3f}, held-out accuracy {accuracy(average, held_out):.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)
    return average


def loss_of(net: PhoneNet, token_output: nn.Conv1d, mean_teacher: Optional[PhoneNet], spoken: Utterances,
            real: Utterances) -> Tensor:
    """The loss of one batch; mean_teacher: None before it is used."""
    with torch.no_grad():
        log, labels, _ = spoken.crops(BATCH)
        real_log, _, tokens = real.crops(REAL_BATCH)
        inputs = torch.cat([masked(inputs_of(augmented(x))) for x in (log, real_log)])
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        logits, token_logits = both_outputs(net, token_output, inputs)
        loss = cross_entropy(logits[:len(log)], targets(labels))
        loss = loss + DISTILLATION_WEIGHT * distillation(token_logits[len(log):], tokens)
        if mean_teacher is not None:
            with torch.no_grad():
                taught = (mean_teacher(inputs_of(real_log)) * MEAN_TEACHER_SHARPNESS).softmax(-1)
            loss = loss + MEAN_TEACHER_WEIGHT * cross_entropy(logits[len(log):], taught)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="the .safetensors file to write (float16)")
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    data = load(args.data)
    known = data.labels[np.cumsum(data.lengths) - data.lengths] != UNKNOWN
    spoken, held_out = (Utterances(data, chosen, device) for chosen in (known & ~data.held_out, data.held_out))
    real = Utterances(data, ~known, device, data.targets)
    net = train(spoken, real, held_out, args.steps, device)
    save_file({name: value.half().contiguous() for name, value in net.cpu().state_dict().items()}, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
