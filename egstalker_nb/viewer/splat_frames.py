"""The Gaussians of a frame as viser takes them, from a run or from a PLY."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.files import shortened
from ..face.regions import REGIONS, region_of
from ..model.ply import load_ply
from ..rendering.export import deformed_gaussians
from ..rendering.renderer import Renderer
from ..rendering.script import Script

#: a colour for each of `REGIONS`
REGION_COLORS = np.array([[214, 39, 40], [31, 119, 180], [148, 103, 189], [255, 187, 60], [222, 180, 150],
                          [110, 120, 130]], np.float32) / 255
assert len(REGION_COLORS) == len(REGIONS)
CACHE_BYTES = 512 << 20  # of frames that were shown: the network takes longer than a frame lasts on a small CPU
PLY_FOV = 0.35  # rad; a PLY says nothing of its camera


@dataclass(frozen=True)
class SplatFrame:
    """The Gaussians of one frame.

    Attributes:
        centers: [N, 3] float32 head frame (OpenCV axes: x right, y down, z away from the viewer).
        covariances: [N, 3, 3] float32 head units squared.
        rgbs: [N, 3] float32 0...1.
        opacities: [N, 1] float32 0...1.
        w2c: [4, 4] float32 world-to-camera: from the head frame to the camera of the clip.
    """

    centers: np.ndarray
    covariances: np.ndarray
    rgbs: np.ndarray
    opacities: np.ndarray
    w2c: np.ndarray

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.centers, self.covariances, self.rgbs, self.opacities))


class SplatSequence(Protocol):
    """Frames that a viewer shows.

    Attributes:
        title: of the page.
        fov: vertical field of view of the clip's camera, rad.
        rest: [4, 4] float32 world-to-camera where the motion of the head is switched off.
        regions: [N] int64, the part of the head of each Gaussian, see `face.regions`; None: unknown.
        wave: [T] float32 16 kHz; None: without sound.
    """

    title: str
    fov: float
    rest: np.ndarray
    regions: Optional[np.ndarray]
    wave: Optional[np.ndarray]

    def __len__(self) -> int: ...

    def frame(self, i: int) -> SplatFrame: ...


class HeadFrames:
    """The frames of a script, deformed by the network when they are first asked for; see `SplatSequence`.

    Args:
        renderer: of the head.
        script: at least one frame.
        title: of the page.
    """

    def __init__(self, renderer: Renderer, script: Script, title: str):
        self.title, self.wave = title, script.wave
        self.fov = 2 * float(np.arctan(renderer.ds.size / 2 / renderer.ds.focal))
        self.rest = renderer.w2c[len(renderer.w2c) // 2]
        self._head, self._given, self._w2c = renderer.head, renderer.conditions_of(script), script.w2c
        self._spatial = self._head.spatial() if renderer.deform else None
        self._cache: dict[int, SplatFrame] = {}
        means = self._head.gaussians["means"].detach()
        face = torch.from_numpy(renderer.ds.mean_face).to(means.device)
        self.regions: Optional[np.ndarray] = region_of(means, face).cpu().numpy()

    def __len__(self) -> int:
        return len(self._w2c)

    def frame(self, i: int) -> SplatFrame:
        if i not in self._cache:
            made = splat_frame(deformed_gaussians(self._head, self._given[i:i + 1], self._spatial), self._w2c[i])
            if (len(self._cache) + 1) * made.nbytes > CACHE_BYTES:
                return made  # the first frames stay: dropping the oldest would keep none of a loop
            self._cache[i] = made
        return self._cache[i]


class PlyFrames:
    """A PLY in the 3DGS layout as a sequence of one frame, seen from in front; see `SplatSequence`.

    Args:
        path: of the PLY, in the frame that `egs.export_ply` writes: x right, y down, z away from the viewer.

    Raises:
        InputError: no PLY of the 3DGS layout, or one without Gaussians.
    """

    def __init__(self, path: Path):
        g = load_ply(path)
        if not len(g["means"]):
            raise InputError("a PLY with Gaussians", f"none in '{shortened(path)}'", "Export it again.")
        self.title, self.fov = path.stem, PLY_FOV
        self.regions: Optional[np.ndarray] = None
        self.wave: Optional[np.ndarray] = None
        points = g["means"].numpy()
        # percentiles: a few Gaussians of most models lie far away
        low, high = np.percentile(points, [5, 95], axis=0)
        self.rest = np.eye(4, dtype=np.float32)
        self.rest[:3, 3] = -(low + high) / 2
        self.rest[2, 3] += 1.2 * max(float((high - low).max()), 1e-3) / np.tan(PLY_FOV / 2)
        self._frame = splat_frame(g, self.rest)

    def __len__(self) -> int:
        return 1

    def frame(self, i: int) -> SplatFrame:
        return self._frame


@torch.no_grad()
def splat_frame(g: dict[str, Tensor], w2c: np.ndarray) -> SplatFrame:
    """Activate Gaussians for viser, which takes colours rather than harmonics: those seen from the camera of the clip.

    Args:
        g: Gaussians before activation in gsplat's layout, see `make_gaussians`.
        w2c: [4, 4] camera of the clip in this frame.
    """
    from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci, _spherical_harmonics

    quats = torch.nn.functional.normalize(g["quats"], dim=-1)
    covariances, _ = _quat_scale_to_covar_preci(quats, g["scales"].exp(), compute_preci=False)
    sh = torch.cat([g["sh0"], g["shN"]], 1)  # [N, K, 3]
    camera = torch.from_numpy(-w2c[:3, :3].T @ w2c[:3, 3]).to(sh.device)
    colors = _spherical_harmonics(round(sh.shape[1] ** 0.5) - 1, g["means"] - camera, sh) + 0.5
    centers, covariances, rgbs, opacities = (value.float().cpu().numpy() for value in (
        g["means"], covariances, colors.clamp(0, 1), g["opacities"].sigmoid()[:, None]))
    return SplatFrame(centers, covariances, rgbs, opacities, w2c)
