"""The torso as a layer of its own: a learned image that follows the head, over the clean plate.

It is not copied from frames of the video, so that it can be rendered for any head pose and for any length.
"""
from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CODES = 8           # coefficients that describe the deformation of the torso in a frame
POSE = 6            # numbers of a head pose: rotation (against the mean, about rad) and translation (head units)
CHANNELS = 6        # of a field: shift x and y (half images), red, green, blue and opacity
GRID = 12           # control points of a field along each axis


class Torso(nn.Module):
    """What lies behind the splats: plate and torso.

    An image of the torso with opacity is warped by a smooth field and composited over the plate. The field is a linear
    combination of learned ones, its coefficients the codes of a frame. It changes colours a little as well, for the
    shadow of the chin.

    Attributes:
        plate: [S, S, 3] uint8, the clean background.
        picture: [4, S, S] uint8, colours and opacity of the torso.
        fields: [CODES, CHANNELS, GRID, GRID].
        codes: [N, CODES] of the dataset's frames; those of validation frames follow from the pose alone.
        turned: [3, 3] rotation of the mean training pose.
        shifted: [3] translation of the mean training pose, head units.
        spread: [POSE] standard deviation of the training poses around it.
        low, high: [POSE] their range, in standard deviations.
        mix: [POSE, CODES] from poses to codes.
    """

    picture: Tensor
    plate: Tensor
    codes: Tensor
    turned: Tensor
    shifted: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, size: int, num_frames: int):
        super().__init__()
        self.fields = nn.Parameter(torch.zeros(CODES, CHANNELS, GRID, GRID), requires_grad=False)
        self.mix = nn.Parameter(torch.eye(POSE, CODES), requires_grad=False)
        for name, value in {"picture": torch.zeros(4, size, size, dtype=torch.uint8),
                            "plate": torch.zeros(size, size, 3, dtype=torch.uint8),
                            "codes": torch.zeros(num_frames, CODES), "turned": torch.eye(3), "shifted": torch.zeros(3),
                            "spread": torch.ones(POSE), "low": torch.zeros(POSE), "high": torch.zeros(POSE)}.items():
            self.register_buffer(name, value)

    @classmethod
    def blank(cls, size: int, num_frames: int) -> Torso:
        """A layer of the right shapes for loading a checkpoint; size in px."""
        return cls(size, num_frames)

    def forward(self, codes: Tensor) -> Tensor:
        """Backgrounds [B, S, S, 3] 0...1 of codes [B, CODES]."""
        return self.layer(codes, self.picture.float() / 255, self.clean_plate()).permute(0, 2, 3, 1)

    def codes_of(self, w2c: Tensor) -> Tensor:
        """Codes [B, CODES] for head poses [B, 4, 4].

        Poses outside the range of the training frames are clamped to it: neither an orbit nor another clip's poses
        deform the torso in a way that was never seen.
        """
        return self.pose_of(w2c) @ self.mix

    def pose_of(self, w2c: Tensor) -> Tensor:
        """Head poses [B, 4, 4] relative to the mean one, in standard deviations, clamped to the range: [B, POSE]."""
        return (self.away(w2c) / self.spread).clamp(self.low, self.high)

    def away(self, w2c: Tensor) -> Tensor:
        """Rotation (sine of the angle times the axis) and translation of heads [B, 4, 4] relative to the mean pose:
        [B, POSE]."""
        turn = w2c[:, :3, :3] @ self.turned.T
        skew = (turn - turn.transpose(1, 2)) / 2
        return torch.cat([skew[:, 2, 1, None], skew[:, 0, 2, None], skew[:, 1, 0, None],
                          w2c[:, :3, 3] - self.shifted], -1)

    def clean_plate(self) -> Tensor:
        """[3, S, S] 0...1."""
        return self.plate.permute(2, 0, 1).float() / 255

    def layer(self, codes: Tensor, picture: Tensor, plate: Tensor, top: int = 0) -> Tensor:
        """Warp the image of the torso and composite it over the plate.

        Args:
            codes: [B, CODES].
            picture: [4, S, S] 0...1; any S.
            plate: [3, S, S] 0...1.
            top: first row that is rendered.

        Returns:
            [B, 3, S - top, S] 0...1, the rows from `top` down.
        """
        colour, opacity, _ = self._warp(codes, picture, top)
        return torch.lerp(plate[:, top:].expand_as(colour), colour, opacity)

    def cut_out(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The torso without the plate, for another background; over the plate it looks as `forward` renders it.

        Where the plate resembles the torso, training leaves the torso's opacity undetermined, and another background
        would show through. So it is opaque inside its outline, with the colours that it has over the plate.

        Args:
            codes: [B, CODES].

        Returns:
            Colours [B, S, S, 3] 0...1, not multiplied by the opacity, and opacity [B, S, S, 1] 0...1.
        """
        picture = self.picture.float() / 255
        colour, opacity, inside = self._warp(codes, torch.cat([picture, self.inside()]))
        filled = torch.maximum(opacity, inside)
        plate = self.clean_plate()
        colour = (opacity * colour + (filled - opacity) * plate) / filled.clamp(min=1e-6)
        return colour.clamp(0, 1).permute(0, 2, 3, 1), filled.permute(0, 2, 3, 1)

    def inside(self) -> Tensor:
        """[1, S, S] 0...1: inside the outline of the torso, away from its edge, which keeps its own softness."""
        opacity = self.picture[3].cpu().numpy()
        width = 2 * (len(opacity) // 64) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        # beyond the border of the frame the torso goes on
        solid = cv2.copyMakeBorder((opacity > 127).astype(np.uint8), *4 * (2 * width,), cv2.BORDER_REPLICATE)
        solid = cv2.erode(cv2.morphologyEx(solid, cv2.MORPH_CLOSE, disc), disc)
        soft = cv2.GaussianBlur(solid.astype(np.float32), (width, width), 0)[2 * width:-2 * width, 2 * width:-2 * width]
        return torch.from_numpy(soft.copy())[None].to(self.picture.device)

    def _warp(self, codes: Tensor, picture: Tensor, top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Warped colours [B, 3, S - top, S], opacity [B, 1, ...] and what other channels `picture` has."""
        size = picture.shape[-1]
        field = torch.einsum("bk,kcgh->bcgh", codes, self.fields)
        # cubic first, so that control points do not show; then linear, which is cheap
        field = F.interpolate(field, (4 * GRID, 4 * GRID), mode="bicubic", align_corners=True)
        field = F.interpolate(field, (size, size), mode="bilinear", align_corners=True)[:, :, top:]
        at = (torch.arange(size, device=codes.device) + 0.5) * (2 / size) - 1
        grid = torch.stack([at + field[:, 0], at[top:, None] + field[:, 1]], -1)       # [B, S - top, S, 2]
        bent = F.grid_sample(picture.expand(len(codes), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        colour = (bent[:, :3] + field[:, 2:5]).clamp(0, 1)
        opacity = (bent[:, 3:4] * (1 + field[:, 5:])).clamp(0, 1)  # a product: where there is no torso, none appears
        return colour, opacity, bent[:, 4:]
