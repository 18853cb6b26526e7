"""The tables of docs/scale.md: what was measured, and what follows from it for many heads on many GPUs."""
from __future__ import annotations

import math
from typing import Any, Callable, Optional

from report_table import made, table, where

HEADS = 10_000
#: what is not in a result file: bytes and seconds of one head, see docs/scale.md for how they were found
START_S = 20.0             # of a run beside its training: kernel, CUDA, scores and figures
CHECKPOINT_MB, HEAD_MB = 40.6, 12.0  # 10,000 Gaussians: with the optimisers' state; the part that renders
SNAPSHOTS_MB = 14.0        # 42 of them
DATASET_MB = 23.0          # 8 s at 512 px
PREPARATION_CORE_S = 24.0  # 8 s of video
DOLLARS_PER_HOUR = 2.5     # of one H100: an assumption, put your own


def sweeps(result: dict) -> str:
    """Overhead of a run, and the long queue."""
    o = result["overhead"]
    rows = [["a run that takes 10 s, executed by Papermill alone", f"{o['papermill_alone']:.2f} s"],
            ["the same as a run of a sweep", f"{o['in_the_sweep']:.2f} s"],
            ["overhead of a run; as a share of one of a minute (at most 10 %)",
             f"{o['overhead_each']:.2f} s; {100 * o['share_of_a_minute']:.1f} %"],
            ["start of Ray, once a sweep", f"{o['start_of_ray']:.1f} s"]]
    if q := result.get("queue"):
        rows += [[f"{q['runs']:,} queued notebooks that do nothing, two at a time",
                  f"{q['seconds'] / 60:.1f} min, {q['seconds_each']:.2f} s each"],
                 ["planning them; their table at the end", f"{q['plan_s']:.1f} s; {q['table_s']:.2f} s"],
                 ["memory of the scheduling process; with Ray, workers and kernels",
                  f"{q['driver_mib']:,} MiB; {q['all_mib']:,} MiB"]]
    return table(["measure", "measured"], rows) + f"\n\n{where(result['facts'])}"


def sweep_gpus(result: dict) -> str:
    """Trainings as a sweep, one on each card."""
    many, one = sorted(result["rows"], key=lambda row: -row["cards"])
    rows = [[f"{row['cards']} card(s), one run on each", f"{row['runs']}", f"{row['seconds']:.0f} s",
             f"{sum(row['seconds_each']) / row['runs']:.1f} s"] for row in (one, many)]
    rows.append(["times as fast", "", f"{one['seconds'] / many['seconds']:.2f}", ""])
    return table([f"{result['dataset']}, production, {result['settings']['iterations']:,} iterations", "runs", "in all",
                  "each, kernel included"], rows) + f"\n\n{where(result['facts'])}"


def data_parallel(result: dict) -> str:
    """Speed of one run on several GPUs by batch size, and quality."""
    speed = {(row["batch"], row["gpus"]): row["it_per_s"] for row in result["speed"]}
    gpus = sorted({count for _, count in speed})

    def cell(batch: int, count: int) -> str:
        found = speed.get((batch, count))
        if found is None:
            return "-"
        return f"{found:.0f}" + (f" ({found / speed[batch, 1]:.2f} x)" if count > 1 else "")

    rows = [[batch, *[cell(batch, count) for count in gpus]] for batch in sorted({batch for batch, _ in speed})]
    quality = [f"{row['gpus']} GPU(s): {row['psnr_composite_train']:.2f} / {row['psnr_composite_val']:.2f}"
               for row in result["quality"]]
    return (table([f"batch size ({result['dataset']}, {result['size']} px), iterations/s"] + [
        f"{count} GPU{'s' if count > 1 else ''}" for count in gpus], rows)
        + f"\n\nPSNR on training / validation frames after 4,000 iterations of batch 8: {'; '.join(quality)} dB.\n\n"
        + where(result["facts"]) + f"; {result['note']}")


def packing(result: dict) -> str:
    """Several trainings on one card."""
    kinds = [(title, {row["heads"]: row for row in result[kind]["rows"]}) for kind, title in
             (("processes", "plain processes"), ("mps", "under NVIDIA MPS"))]

    def cell(row: Optional[dict]) -> str:
        return "-" if row is None else f"{row['it_per_s_each']:.0f} ({row['it_per_s_all']:.0f})"

    counts = sorted({count for _, rows in kinds for count in rows})
    return (table(["heads on one card", *[f"{title}: iterations/s each (in all)" for title, _ in kinds]],
                  [[count, *[cell(rows.get(count)) for _, rows in kinds]] for count in counts])
            + f"\n\n{where(result['facts'])}; {result['mps']['gpu_mib_each'] / 1024:.1f} GiB of GPU memory a head")


def ten_thousand(gpu: dict, packed: dict) -> str:
    """From 1 to 1,000 GPUs: time, money and storage of 10,000 production heads."""
    training = gpu["presets"][0]["seconds"]
    rates = {row["heads"]: row["it_per_s_all"] for row in packed["mps"]["rows"]}
    gain = rates[4] / max(rates[1], packed["processes"]["rows"][0]["it_per_s_all"])
    rows: list[list[Any]] = []
    for count in (1, 10, 100, 1000):
        plain = math.ceil(HEADS / count) * (training + START_S)
        four = math.ceil(HEADS / (4 * count)) * 4 * (training / gain + START_S / 4)
        rows.append([f"{count:,}", _span(plain), _span(four), f"{HEADS / count:,.0f}"])
    hours, packed_hours = (HEADS * seconds / 3600 for seconds in (training + START_S, training / gain + START_S / 4))
    text = table(["GPUs", "one head on each", "four heads on each, under MPS", "heads a GPU"], rows)
    return (f"{text}\n\n{HEADS:,} heads, {training:.0f} s of training and {START_S:.0f} s around it each: "
            f"{hours:,.0f} GPU-hours, or {packed_hours:,.0f} under MPS ({gain:.2f} times the iterations of one head); "
            f"at an assumed ${DOLLARS_PER_HOUR} an hour ${hours * DOLLARS_PER_HOUR / HEADS:.2f} or "
            f"${packed_hours * DOLLARS_PER_HOUR / HEADS:.2f} a head.")


def storage() -> str:
    """What 10,000 heads take."""
    rows = [["prepared datasets, 8 s at 512 px", f"{DATASET_MB:.0f} MB"],
            ["a run with all 7 checkpoints of `production`, and snapshots",
             f"{7 * CHECKPOINT_MB + SNAPSHOTS_MB:.0f} MB"],
            ["the same with `keep_checkpoints: 1` (the newest, and that of the coarse stage)",
             f"{2 * CHECKPOINT_MB + SNAPSHOTS_MB:.0f} MB"],
            ["only what renders: `head.safetensors`", f"{HEAD_MB:.0f} MB"]]
    megabytes = [float(row[1].split()[0]) for row in rows]
    return table(["what", "one", f"{HEADS:,}"],
                 [[*row, f"{size * HEADS / 1e6:.2f} TB"] for row, size in zip(rows, megabytes)])


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} min"


def texts(read: Callable[[str], Any]) -> dict[str, str]:
    """All tables that have their results."""
    found = made({"sweeps": sweeps, "sweep_gpus": sweep_gpus, "data_parallel": data_parallel, "packing": packing}, read)
    gpu, packed = read("gpu"), read("packing")
    if gpu and packed:
        found["ten_thousand"] = ten_thousand(gpu, packed)
    return {**found, "storage": storage()}
