"""LPIPS (Zhang et al. 2018) on the convolutions of AlexNet or VGG16, and upstream's VGG16 loss, without torchvision."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError, MissingPackageError
from ..core.reading import Unreadable, read_torch
from .weights import how_to_get, load_weights, weight_path

Backbone = Literal["alexnet", "vgg16"]

#: name of the linear layers' file in torchmetrics, per backbone
_LINEAR = {"alexnet": "alex.pth", "vgg16": "vgg.pth"}
#: index of the ReLU whose output is compared, last of each slice
_TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29)}
_CHANNELS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in -1...1, as LPIPS was trained
MIN_SIDE = 32  # px; smaller images vanish in the poolings


def _alexnet() -> nn.Sequential:
    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, size, stride, padding=2 if size > 3 else 1), nn.ReLU()]

    return nn.Sequential(*conv(3, 64, 11, 4), nn.MaxPool2d(3, 2), *conv(64, 192, 5), nn.MaxPool2d(3, 2),
                         *conv(192, 384, 3), *conv(384, 256, 3), *conv(256, 256, 3))


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2, 2)] if block else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


class Perceptual(nn.Module):
    """LPIPS of pairs of images: weighted squared differences of unit-normalised features, averaged over each layer.

    The convolutions' names are torchvision's (`features.N.weight`). Parameters are frozen; the result is
    differentiable in the images.

    Args:
        backbone: `alexnet` (what papers report) or `vgg16`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone = "alexnet"):
        super().__init__()
        self.features = _alexnet() if backbone == "alexnet" else _vgg16()
        self.backbone = backbone
        for index, channels in enumerate(_CHANNELS[backbone]):
            self.register_buffer(f"linear{index}", torch.ones(channels), persistent=False)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of images a and b, [B, H, W, 3] float 0...1, at least 32 px: [B], 0 for equal images.

        Raises:
            InputError: other or unequal shapes.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[-1] != 3 or min(a.shape[1:3]) < MIN_SIDE:
            raise InputError(f"two equal shapes [B, H, W, 3] of at least {MIN_SIDE} px",
                             f"{list(a.shape)} and {list(b.shape)}", "Bring both to one size, channels last.")
        x, y = ((2 * image.movedim(-1, 1) - 1 - self.shift) / self.scale for image in (a, b))
        total = a.new_zeros(len(a))
        taps = _TAPS[self.backbone]
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in taps:
                weights = getattr(self, f"linear{taps.index(index)}").view(-1, 1, 1)
                square = (_unit(x) - _unit(y)).square()
                total = total + (weights * square).sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (1e-8 + features.square().sum(1, keepdim=True)).sqrt()


def load_perceptual(backbone: Backbone = "alexnet", folder: Optional[str | Path] = None,
                    device: str | torch.device = "cpu") -> Perceptual:
    """LPIPS with its published weights.

    Args:
        backbone: see `Perceptual`.
        folder: of weights, see `weights.weight_folder`.
        device: cpu or cuda.

    Raises:
        MissingPackageError: torchmetrics, which carries the linear layers, is not installed.
        InputError: the backbone's weights are missing or damaged.
    """
    path, missing = weight_path(backbone, folder), perceptual_missing(backbone, folder)
    if find_spec("torchmetrics") is None:
        raise MissingPackageError("torchmetrics, which carries LPIPS's linear layers", "no package 'torchmetrics'",
                                  "pip install 'egstalker_nb[metrics]'")
    if path is None:
        raise InputError(f"weights of {backbone}", "none", f"LPIPS {missing}.")
    net = Perceptual(backbone)
    load_weights(net, path)
    for index, tensor in enumerate(_linear_layers(backbone)):
        getattr(net, f"linear{index}").copy_(tensor)
    return net.to(device)


class VggLoss(nn.Module):
    """Perceptual loss of upstream: absolute differences of VGG16's features, summed over four layers.

    Whole images, resized to 224 px and normalised as ImageNet; the layers are relu1_2, relu2_2, relu3_3 and relu4_3
    (GaussianTalker's `utils/loss_utils.py`, at weight 0.01 in both stages). Parameters are frozen. Every operation has
    fixed shapes and stays on the device, so that a step with it can be captured in a CUDA graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(_vgg16())[:_TAPS["vgg16"][3] + 1])
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Of images a and b, [B, H, W, 3] float 0...1: a scalar, the mean over the batch, differentiable in a."""
        x, y = (F.interpolate((image.movedim(-1, 1) - self.mean) / self.std, (224, 224), mode="bilinear")
                for image in (a, b))
        total = a.new_zeros(())
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in _TAPS["vgg16"]:
                total = total + (x - y).abs().mean()
        return total


def load_vgg_loss(device: str | torch.device = "cpu", folder: Optional[str | Path] = None) -> VggLoss:
    """Upstream's perceptual loss with VGG16's published weights.

    Raises:
        InputError: they are missing or damaged.
    """
    path = weight_path("vgg16", folder)
    if path is None:
        raise InputError("weights of VGG16 for lambda_perceptual above 0", "none",
                         f"It {how_to_get('vgg16', folder)}. Or set lambda_perceptual to 0.")
    net = VggLoss()
    load_weights(net, path)
    return net.to(device)


def perceptual_missing(backbone: Backbone, folder: Optional[str | Path] = None) -> Optional[str]:
    """What LPIPS lacks here, in one line; None: nothing."""
    if find_spec("torchmetrics") is None:
        return "needs the package torchmetrics: pip install 'egstalker_nb[metrics]'"
    return None if weight_path(backbone, folder) else how_to_get(backbone, folder)


def _linear_layers(backbone: Backbone) -> list[Tensor]:
    """The linear layers, [channels] each, from torchmetrics' package data, without importing it."""
    spec = find_spec("torchmetrics")
    assert spec is not None and spec.origin is not None  # asked for by the caller
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / _LINEAR[backbone]
    try:
        state = read_torch(path, legacy=True)
        return [state[f"lin{i}.model.1.weight"].reshape(channels) for i, channels in enumerate(_CHANNELS[backbone])]
    except (Unreadable, KeyError, RuntimeError) as error:
        raise MissingPackageError("torchmetrics with the linear layers of LPIPS", f"'{path.name}' that is not readable",
                                  "Install it again: pip install 'egstalker_nb[metrics]'") from error
