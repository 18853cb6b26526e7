"""The tables of docs/web_head.md: heads as pages, and the audio side of a page."""
from __future__ import annotations

from typing import Any, Callable, Optional

from report_table import made, table, where


def web_head(result: dict) -> str:
    """Size, cost and speed of each head."""
    head = ["head", "size", "Gaussians / bases", "file", "validation PSNR: network / page",
            "page against `egs.render`: mean / least", "worker, a frame", "whole frame: median / 95 %", "export",
            "opening"]
    rows = [[r["run"], f"{r['size']} px", f"{r['gaussians']:,} / {r['bases']}", f"{r['mb']:.1f} MB",
             f"{r['network_psnr']:.2f} / {r['page_psnr']:.2f} dB",
             f"{r['render_agreement_mean']:.1f} / {r['render_agreement_min']:.1f} dB", f"{r['worker_ms']:.1f} ms",
             f"{r['frame_ms']:.0f} / {r['frame_ms_95']:.0f} ms", f"{r['export_s']:.0f} s", f"{r['load_s']:.1f} s"]
            for r in result["heads"]]
    return f"{table(head, rows)}\n\nChromium {result['browser']}, {where(result['facts'])}"


def web_audio(result: dict) -> str:
    """Agreement and speed of the encoder in the page."""
    head = ["recording", "whole file: difference from the package", "times real time",
            "stream: least r with `LiveFeatures`", "stream, a frame: median / 95 %", "share of a core"]
    rows = [[name, f"{r['relative_error']:.1e}", f"{r['times_real_time']:.0f}", f"{min(r['stream_r']):.4f}",
             f"{r['stream_ms_p50']:.1f} / {r['stream_ms_p95']:.1f} ms", f"{100 * r['stream_share']:.0f} %"]
            for name, r in result["audio"].items()]
    packed = f"{result['packed_bytes'] / 1e6:.1f} MB of the file, before base64"
    return f"{table(head, rows)}\n\nEncoder and prior: {packed}. Chromium {result['browser']}, {where(result['facts'])}"


def texts(read: Callable[[str], Optional[dict[str, Any]]]) -> dict[str, str]:
    """Table by name, of those whose results are there."""
    return made({"web_head": web_head, "web_audio": web_audio}, read)
