"""The torso as a layer of its own: a learned image that follows the head, over the clean plate.

It is not copied from frames of the video, so that it can be rendered for any head pose and for any length. With a
camera that moves, plate and torso lie on a canvas in the reference view (see `data/camera_view.py`), and each frame
sees its part of it.
"""
from __future__ import annotations

from typing import Optional

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.camera_view import VIEW

CODES = 12          # coefficients that describe the deformation of the torso in a frame
POSE = 6            # numbers of a head pose: rotation (against the mean, about rad) and translation (head units)
CHANNELS = 6        # of a field: shift x and y (half images), red, green, blue and opacity
GRID = 20           # control points of a field along each axis


class Torso(nn.Module):
    """What lies behind the splats: plate and torso.

    An image of the torso with opacity is warped by a smooth field and composited over the plate. The field is a linear
    combination of learned ones, its coefficients the codes of a frame. It changes colours a little as well, for the
    shadow of the chin.

    Args:
        size: S, side of a frame, px.
        num_frames: N, of the dataset.
        margin: M, of the canvas around a frame of a camera that moves, px; None: a still camera, M = 0.

    Attributes:
        moving: whether the camera moves: the last `VIEW` numbers of a code are then how the camera sees the canvas.
        plate: [S + 2M, S + 2M, 3] uint8, the clean background.
        picture: [4, S + 2M, S + 2M] uint8, colours and opacity of the torso.
        fields: [CODES, CHANNELS, GRID, GRID]; checkpoints of earlier versions have [8, CHANNELS, 12, 12].
        codes: [N, CODES] of the dataset's frames, or [N, CODES + VIEW]. All are fitted to their own frames, as head
            poses are (see `fit_torso`); views are measured on the frames' background.
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
    lens: Tensor

    def __init__(self, size: int, num_frames: int, margin: Optional[int] = None):
        super().__init__()
        self.size, self.moving = size, margin is not None
        side = size + 2 * (margin or 0)
        self.fields = nn.Parameter(torch.zeros(CODES, CHANNELS, GRID, GRID), requires_grad=False)
        self.mix = nn.Parameter(torch.eye(POSE, CODES), requires_grad=False)
        for name, value in {"picture": torch.zeros(4, side, side, dtype=torch.uint8),
                            "plate": torch.zeros(side, side, 3, dtype=torch.uint8),
                            "codes": torch.zeros(num_frames, CODES + VIEW * self.moving),
                            "turned": torch.eye(3), "shifted": torch.zeros(3),
                            "spread": torch.ones(POSE), "low": torch.zeros(POSE), "high": torch.zeros(POSE)}.items():
            self.register_buffer(name, value)
        if margin is not None:  # a checkpoint of a still camera is as it always was
            self.register_buffer("margin", torch.tensor(margin))
            self.register_buffer("lens", torch.tensor(2.0))  # focal length, half images

    @classmethod
    def blank(cls, size: int, num_frames: int, margin: Optional[int] = None) -> Torso:
        """A layer of the right shapes for loading a checkpoint; arguments as for the class."""
        return cls(size, num_frames, margin)

    def forward(self, codes: Tensor) -> Tensor:
        """Backgrounds [B, S, S, 3] 0...1 of codes [B, C], as wide as `codes`."""
        return self.layer(codes, self.picture.float() / 255, self.clean_plate()).permute(0, 2, 3, 1)

    @property
    def views(self) -> Optional[Tensor]:
        """[N, VIEW] of the dataset's frames; None for a still camera."""
        return self.codes[:, len(self.fields):] if self.moving else None

    def codes_of(self, w2c: Tensor, views: Optional[Tensor] = None) -> Tensor:
        """Codes [B, C] for head poses [B, 4, 4].

        Poses outside the range of the training frames are clamped to it: neither an orbit nor another clip's poses
        deform the torso in a way that was never seen.

        Args:
            w2c: of the heads, in the camera of the frame.
            views: [B, VIEW] of a camera that moves; None: the reference view.
        """
        if not self.moving:
            return self.pose_of(w2c) @ self.mix
        if views is None:
            views = w2c.new_zeros(len(w2c), VIEW)
        return torch.cat([self.pose_of(self.steadied(w2c, views)) @ self.mix, views], -1)

    def steadied(self, w2c: Tensor, views: Optional[Tensor]) -> Tensor:
        """Head poses [B, 4, 4] as they are in the reference view: tracking takes a zoom for depth, and a camera that
        pans or rolls for a head that does, which the torso must not follow.

        Args:
            w2c: in the camera of each frame.
            views: [B, VIEW] of the frames; None: a still camera.
        """
        if views is None:
            return w2c
        shift, scale, roll = views[:, :2], views[:, 2:3].exp(), views[:, 3]
        zero, one = torch.zeros_like(roll), torch.ones_like(roll)
        back = torch.stack([roll.cos(), roll.sin(), zero, -roll.sin(), roll.cos(), zero, zero, zero, one], -1)
        back = back.view(-1, 3, 3)
        place = self.lens * w2c[:, :2, 3] / w2c[:, 2:3, 3]                                  # half images
        place = ((place - shift)[:, None] @ back[:, :2, :2].transpose(1, 2))[:, 0] / scale
        depth = w2c[:, 2:3, 3] * scale
        steady = w2c.clone()
        steady[:, :3, :3] = back @ w2c[:, :3, :3]
        steady[:, :3, 3] = torch.cat([place * depth / self.lens, depth], -1)
        return steady

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
        """[3, S + 2M, S + 2M] 0...1."""
        return self.plate.permute(2, 0, 1).float() / 255

    def layer(self, codes: Tensor, picture: Tensor, plate: Tensor, top: int = 0) -> Tensor:
        """Warp the image of the torso and composite it over the plate.

        Args:
            codes: [B, C].
            picture: [4, S + 2M, S + 2M] 0...1; any S, with M in proportion.
            plate: [3, S + 2M, S + 2M] 0...1.
            top: first row that is rendered.

        Returns:
            [B, 3, S - top, S] 0...1, the rows from `top` down.
        """
        places = self._places(codes, picture.shape[-1], top)
        colour, opacity, _ = self._warp(codes, picture, places, top)
        return torch.lerp(self._seen(plate, places, top).expand_as(colour), colour, opacity)

    def scene(self, codes: Tensor, plate: Optional[Tensor] = None) -> Tensor:
        """The plate [3, S + 2M, S + 2M] as frames see it without the torso: [B, 3, S, S], or [1, 3, S, S] from a still
        camera; None: its own."""
        plate = self.clean_plate() if plate is None else plate
        return self._seen(plate, self._places(codes, plate.shape[-1]))

    def cut_out(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The torso without the plate, for another background; over the plate it looks as `forward` renders it.

        Where the plate resembles the torso, training leaves the torso's opacity undetermined, and another background
        would show through. So it is opaque inside its outline, with the colours that it has over the plate.

        Args:
            codes: [B, C].

        Returns:
            Colours [B, S, S, 3] 0...1, not multiplied by the opacity, and opacity [B, S, S, 1] 0...1.
        """
        picture = self.picture.float() / 255
        places = self._places(codes, picture.shape[-1])
        colour, opacity, inside = self._warp(codes, torch.cat([picture, self.inside()]), places)
        filled = torch.maximum(opacity, inside)
        plate = self._seen(self.clean_plate(), places)
        colour = (opacity * colour + (filled - opacity) * plate) / filled.clamp(min=1e-6)
        return colour.clamp(0, 1).permute(0, 2, 3, 1), filled.permute(0, 2, 3, 1)

    def inside(self) -> Tensor:
        """[1, S + 2M, S + 2M] 0...1: inside the outline of the torso, away from its edge, which keeps its own
        softness."""
        opacity = self.picture[3].cpu().numpy()
        width = 2 * (len(opacity) // 64) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        # beyond the border of the frame the torso goes on
        solid = cv2.copyMakeBorder((opacity > 127).astype(np.uint8), *4 * (2 * width,), cv2.BORDER_REPLICATE)
        solid = cv2.erode(cv2.morphologyEx(solid, cv2.MORPH_CLOSE, disc), disc)
        soft = cv2.GaussianBlur(solid.astype(np.float32), (width, width), 0)[2 * width:-2 * width, 2 * width:-2 * width]
        return torch.from_numpy(soft.copy())[None].to(self.picture.device)

    def _places(self, codes: Tensor, side: int, top: int = 0) -> Optional[Tensor]:
        """Which points of the canvas frames see: [B, S - top, S, 2], half canvases; None from a still camera, which
        sees all of it.

        Args:
            codes: [B, C].
            side: of the canvas, px.
            top: first row of the frames.
        """
        if not self.moving:
            return None
        size = round(side * self.size / self.plate.shape[0])
        at = (torch.arange(size, device=codes.device) + 0.5) * (2 / size) - 1
        view = codes[:, len(self.fields):, None, None]                                      # [B, VIEW, 1, 1]
        x, y = at - view[:, 0], at[top:, None] - view[:, 1]
        scale = (-view[:, 2]).exp() * (self.size / self.plate.shape[0])
        along, across = scale * view[:, 3].cos(), scale * view[:, 3].sin()
        return torch.stack([along * x + across * y, along * y - across * x], -1)

    def _seen(self, plate: Tensor, places: Optional[Tensor], top: int = 0) -> Tensor:
        """The plate [3, S + 2M, S + 2M] from row `top` of the frames down: [B, 3, S - top, S]."""
        if places is None:
            return plate[None, :, top:]
        return F.grid_sample(plate.expand(len(places), -1, -1, -1), places, padding_mode="border", align_corners=False)

    def _warp(self, codes: Tensor, picture: Tensor, places: Optional[Tensor], top: int = 0
              ) -> tuple[Tensor, Tensor, Tensor]:
        """Warped colours [B, 3, S - top, S], opacity [B, 1, ...] and what other channels `picture` has."""
        side = picture.shape[-1]
        field = torch.einsum("bk,kcgh->bcgh", codes[:, :len(self.fields)], self.fields)
        # cubic first, so that control points do not show; then linear, which is cheap
        points = 4 * field.shape[-1]
        field = F.interpolate(field, (points, points), mode="bicubic", align_corners=True)
        if places is None:
            field = F.interpolate(field, (side, side), mode="bilinear", align_corners=True)[:, :, top:]
            at = (torch.arange(side, device=codes.device) + 0.5) * (2 / side) - 1
            grid = torch.stack([at + field[:, 0], at[top:, None] + field[:, 1]], -1)       # [B, S - top, S, 2]
        else:
            # corners of the field lie on the canvas' outermost pixels, as above
            field = F.grid_sample(field, places * (side / (side - 1)), padding_mode="border", align_corners=True)
            grid = places + field[:, :2].permute(0, 2, 3, 1) * (self.size / self.plate.shape[0])
        bent = F.grid_sample(picture.expand(len(codes), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        colour = (bent[:, :3] + field[:, 2:5]).clamp(0, 1)
        opacity = (bent[:, 3:4] * (1 + field[:, 5:])).clamp(0, 1)  # a product: where there is no torso, none appears
        return colour, opacity, bent[:, 4:]
