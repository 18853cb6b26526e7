"""Frame accounting: which frames of the video were kept, and why each of the others is missing."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..core.errors import DatasetError
from ..core.files import shortened
from ..media.video_reader import VideoInfo
from .scan import Scan
from .source import UnusableClipError

#: frames (1 s) that a file may lack against its packets without a warning from the decoder: frames before the first
#: key frame, or a truncated last one
MAX_SHORTFALL = 25


def check_read(video: Path, expected: int, scanned: Scan) -> None:
    """Refuse a video with far fewer decodable frames than packets, if the decoder reported no damage.

    Args:
        video: the file.
        expected: number of frames by its packets, at 25 fps.
        scanned: the first pass over the whole video.

    Raises:
        UnusableClipError: more than `MAX_SHORTFALL` frames are missing.
    """
    if expected - scanned.num_frames > MAX_SHORTFALL and not scanned.notes:
        raise UnusableClipError(f"{expected} frames at 25 fps, according to the packets of '{shortened(video)}'",
                                f"{scanned.num_frames} that can be decoded, and no damage",
                                "Convert the file to MP4 (H.264) and prepare that.")


def make_account(info: VideoInfo, scanned: Scan, shots: list[range], used: range) -> dict[str, Any]:
    """Count the frames of the video, those kept, and those missing by reason.

    Args:
        info: of the video.
        scanned: the first pass over the whole video.
        shots: see `find_shots`.
        used: the frames that became the dataset.

    Returns:
        JSON-able: video_frames and video_fps, as stored; frames, on the 25 fps timeline; kept; missing, reason ->
        frames; used, first and last + 1 on the timeline; other_shots, the same for the shots left out.
    """
    frames = max(info.frames_at(), scanned.num_frames)
    return {"video_frames": info.num_frames, "video_fps": round(info.fps, 3), "frames": frames, "kept": len(used),
            "missing": {"could not be decoded": frames - scanned.num_frames,
                        "in another shot": scanned.num_frames - len(used)},
            "used": [used.start, used.stop],
            "other_shots": [[shot.start, shot.stop] for shot in shots if shot.start not in used]}


def check_account(account: dict[str, Any], root: Path, arrays: dict[str, float]) -> None:
    """Compare the account with the contents of the dataset folder.

    Args:
        account: see `make_account`.
        root: the dataset folder.
        arrays: name -> number of frames that it covers.

    Raises:
        DatasetError: frames are missing without a reason, or files or arrays do not cover the frames kept.
    """
    kept = account["kept"]
    found = {"kept and missing frames": kept + sum(account["missing"].values()) - account["frames"] + kept, **arrays}
    for folder, suffix in (("frames", ".jpg"), ("masks", ".png")):
        wanted = {f"{i:06d}{suffix}" for i in range(kept)}
        # files that others put there, such as previews of a file manager, do not count
        there = {path.name for path in (root / folder).iterdir() if re.fullmatch(rf"\d+\{suffix}", path.name)}
        found[f"{folder}/"] = len(there) if there >= wanted else len(there & wanted)
    wrong = {name: count for name, count in found.items() if count != kept}
    if wrong:
        raise DatasetError(f"{kept} frames everywhere in '{shortened(root)}'",
                           ", ".join(f"{count:g} in {name}" for name, count in wrong.items()),
                           "Delete the folder and prepare the clip again.")


def account_text(account: dict[str, Any]) -> str:
    """The account as one sentence."""
    missing = "; ".join(f"{count} {reason}" for reason, count in account["missing"].items() if count)
    resampled = (f" ({account['video_frames']} in the file at {account['video_fps']:g} fps)"
                 if account["video_frames"] != account["frames"] else "")
    return f"{account['kept']} of {account['frames']} frames kept{resampled}{'; ' + missing if missing else ''}"
