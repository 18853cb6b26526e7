"""Parts of the head for points in 3D, by their distances to landmarks."""
from __future__ import annotations

import torch
from torch import Tensor

#: MediaPipe landmarks of each part; a point belongs to the part of its nearest landmark
PARTS = {
    "lips": (0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270,
             291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415),
    "eyes": (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246, 249, 263, 362, 373, 374, 380,
             381, 382, 384, 385, 386, 387, 388, 390, 398, 466, 468, 473),
    "brows": (46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
    "nose": (1, 2, 4, 5, 6, 19, 45, 48, 64, 94, 98, 115, 168, 195, 197, 220, 275, 278, 294, 327, 344, 440),
}
#: chin and jaw, which move with the lips
CHIN_AND_JAW = (18, 32, 43, 57, 83, 92, 106, 132, 135, 136, 140, 148, 149, 150, 152, 164, 165, 167, 169, 170, 171, 172,
                175, 176, 182, 186, 194, 199, 200, 201, 202, 204, 208, 210, 211, 212, 214, 262, 273, 287, 313, 322, 335,
                364, 365, 369, 377, 378, 379, 391, 393, 394, 395, 396, 397, 400, 406, 410, 418, 421, 422, 424, 428, 430,
                431, 432, 434)
SKIN, AROUND = "other skin", "hair, ears, neck"
REGIONS = (*PARTS, SKIN, AROUND)
SOFTNESS = 0.05, 0.03  # head units, width of the soft edge of mouth and eyes
EYE_REACH = 0.15  # head units, distance to the landmarks of lids and brows
FACE_REACH = 0.25  # head units; points further from every landmark do not belong to the face


def region_of(points: Tensor, mean_face: Tensor) -> Tensor:
    """Classify points by region.

    Args:
        points: [N, 3] head frame.
        mean_face: [478, 3] landmarks, head frame.

    Returns:
        [N] int64, indices into `REGIONS`.
    """
    label = torch.full((len(mean_face),), REGIONS.index(SKIN), device=points.device)
    for name, ids in PARTS.items():
        label[list(ids)] = REGIONS.index(name)
    distance, nearest = torch.cdist(points, mean_face).min(1)
    region = label[nearest]
    region[distance > FACE_REACH] = REGIONS.index(AROUND)
    return region


def part_landmarks(mean_face: Tensor) -> tuple[Tensor, Tensor]:
    """Landmarks of mouth, chin and jaw [M, 3] and of eyes and brows [E, 3], from mean_face [478, 3]."""
    return mean_face[[*PARTS["lips"], *CHIN_AND_JAW]], mean_face[[*PARTS["eyes"], *PARTS["brows"]]]


def share_of_parts(points: Tensor, mouth: Tensor, eyes: Tensor) -> Tensor:
    """How far points belong to the rest of the head, to the mouth (with chin and jaw) and to the eyes (with brows).

    Args:
        points: [N, 3] head frame.
        mouth, eyes: see `part_landmarks`.

    Returns:
        [N, 3] 0...1 with soft edges; rows sum to 1.
    """
    mouth = ((FACE_REACH - torch.cdist(points, mouth).amin(1)) / SOFTNESS[0]).sigmoid()
    eyes = ((EYE_REACH - torch.cdist(points, eyes).amin(1)) / SOFTNESS[1]).sigmoid() * (1 - mouth)
    return torch.stack([1 - mouth - eyes, mouth, eyes], 1)


def count_regions(points: Tensor, mean_face: Tensor) -> dict[str, int]:
    """Number of points in each region. See `region_of`."""
    counts = torch.bincount(region_of(points, mean_face), minlength=len(REGIONS)).tolist()
    return dict(zip(REGIONS, counts))
