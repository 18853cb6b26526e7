"""The deformation network of GaussianTalker, from the weights of a `deformation.pth`.

It follows what the public code of GaussianTalker computes in its fine stage: a tri-plane gives each Gaussian a feature,
which attends to four tokens (audio, blink, camera, null); five heads turn the result into offsets. The attention may
also be EGSTalker's, whose agents are the first Gaussians of the file. Dropout is off.
"""
from __future__ import annotations

import re
from typing import Any, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

NETWORK = "deformation_net."
WINDOW = 8               # frames of features that a frame is rendered from, of which it is the fifth
FEATURE = (16, 29)       # DeepSpeech: steps and characters of one frame
AUDIO_WIDTH = 32
HEADS = {"means": ("pos_deform", 3), "scales": ("scales_deform", 3), "quats": ("rotations_deform", 4),
         "opacities": ("opacity_deform", 1), "colors": ("shs_deform", 48)}
#: the setting with which upstream switches a head off, and whether it is off unless a file of arguments says otherwise
SWITCHES = {"means": ("no_dx", False), "scales": ("no_ds", False), "quats": ("no_dr", False),
            "opacities": ("no_do", True), "colors": ("no_dshs", True)}
#: tensors that only the coarse stage needs, or no stage: a rendering of the fine stage never reads them
UNUSED = re.compile(r"(pos|rotation_scaling|opacity)_poc|deformation_net\.(tri_plane\.(feature_out|scales|rotations|"
                    r"opacity|shs)\.|aud_ch_att_net\.|eye_att_net\.|enc_x_mlp\.|audio_mlp\.|eye_mlp\.|"
                    r"transformer\.layers\.\d+\.enc_dec_attention\.(proj|attention_proj_layer)\.)")
_PLANES = ((0, 1), (0, 2), (1, 2))
_GRID = re.compile(r"deformation_net\.tri_plane\.grid\.grids\.(\d+)\.0")
_LAYER = re.compile(r"deformation_net\.transformer\.layers\.(\d+)\.norm1\.gamma")

Shape = tuple[int, ...]


def expected_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The tensors that a rendering needs, in a network of the sizes that the given tensors have.

    Args:
        tensors: of the `deformation.pth`.
    """
    def edge(name: str, axis: int) -> int:
        tensor = tensors.get(NETWORK + name)
        return tensor.shape[axis] if tensor is not None and tensor.ndim > axis else 0

    width, hidden = edge("null_vector", 2), edge("pos_deform.1.weight", 0)
    need: dict[str, Shape] = {"null_vector": (1, 1, width), "tri_plane.grid.aabb": (2, 3)}

    def layer(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = True) -> None:
        need[f"{name}.weight"] = (outputs, inputs, *kernel)
        if bias:
            need[f"{name}.bias"] = (outputs,)

    def mlp(name: str, inputs: int) -> None:
        layer(f"{name}.net.0", inputs, 64, bias=False)
        layer(f"{name}.net.1", 64, width, bias=False)

    levels = max(1, sum(bool(_GRID.fullmatch(name)) for name in tensors))
    for level in range(levels):
        for plane in range(len(_PLANES)):
            name = f"tri_plane.grid.grids.{level}.{plane}"
            need[name] = (1, 0 if width % levels else width // levels, edge(name, 2), edge(name, 3))
    for i, (inputs, outputs) in enumerate(((FEATURE[1], 32), (32, 32), (32, 64), (64, 64))):
        layer(f"audio_net.encoder_conv.{2 * i}", inputs, outputs, 3)
    layer("audio_net.encoder_fc1.0", 64, 64)
    layer("audio_net.encoder_fc1.2", 64, AUDIO_WIDTH)
    for i, (inputs, outputs) in enumerate(((AUDIO_WIDTH, 16), (16, 8), (8, 4), (4, 2), (2, 1))):
        layer(f"audio_att_net.attentionConvNet.{2 * i}", inputs, outputs, 3)
    layer("audio_att_net.attentionNet.0", WINDOW, WINDOW)
    mlp("cam_mlp", 12)
    if width != AUDIO_WIDTH:
        mlp("audio_mlp", AUDIO_WIDTH)
        mlp("eye_mlp", AUDIO_WIDTH)
    for i in range(max(1, sum(bool(_LAYER.fullmatch(name)) for name in tensors))):
        name = f"transformer.layers.{i}"
        if agents := edge(f"{name}.enc_dec_attention.attention_proj_layer.weight", 1):
            layer(f"{name}.enc_dec_attention.agent_linear", width, width)
            layer(f"{name}.enc_dec_attention.attention_proj_layer", agents, width)
            need[f"{name}.PPE.pe"] = (1, edge(f"{name}.PPE.pe", 1), width)
        else:
            for part in ("w_q", "w_k", "w_v", "w_concat"):
                layer(f"{name}.enc_dec_attention.{part}", width, width)
        ffn = edge(f"{name}.ffn.linear1.weight", 0)
        layer(f"{name}.ffn.linear1", width, ffn)
        layer(f"{name}.ffn.linear2", ffn, width)
        for norm in ("norm1", "norm2"):
            need |= {f"{name}.{norm}.gamma": (width,), f"{name}.{norm}.beta": (width,)}
    for head, outputs in HEADS.values():
        layer(f"{head}.1", width, hidden)
        layer(f"{head}.3", hidden, outputs)
    if edge("static_mlp.1.weight", 0):
        layer("static_mlp.1", width, hidden)
        layer("static_mlp.3", hidden, 1)
    return {NETWORK + name: shape for name, shape in need.items()}


class UpstreamMotion:
    """Offsets of the Gaussians of an upstream head.

    Args:
        tensors: of the `deformation.pth`, of the `expected_shapes`.
        settings: upstream's arguments; of them `n_head` and the switches of the heads (`SWITCHES`) matter.
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]):
        self.t = {name.removeprefix(NETWORK): tensor.float() for name, tensor in tensors.items()}
        self.attention_heads = int(settings["n_head"])
        self.width = self.t["null_vector"].shape[2]
        self.layers = sum(bool(_LAYER.fullmatch(name)) for name in tensors)
        self.levels = sum(bool(_GRID.fullmatch(name)) for name in tensors)
        self.active = [name for name, (switch, off) in SWITCHES.items() if not settings.get(switch, off)]

    def tokens(self, features: Tensor, blink: Tensor, w2c: Tensor) -> Tensor:
        """What the Gaussians attend to.

        Args:
            features: [F, 16, 29] DeepSpeech, one row a frame; zeros stand before the first and after the last.
            blink: [F] intensity of action unit 45 (OpenFace's `AU45_r`).
            w2c: [F, 4, 4] world-to-camera, OpenCV axes.

        Returns:
            [F, 4, width]: audio, blink, camera, null.
        """
        before = WINDOW // 2
        windows = F.pad(features.transpose(1, 2), (0, 0, 0, 0, before, before)).unfold(0, WINDOW, 1)[:len(features)]
        x = windows.permute(0, 3, 1, 2).flatten(0, 1)                                    # [F * 8, 29, 16]
        for i in range(0, 8, 2):
            x = F.leaky_relu(self._conv(f"audio_net.encoder_conv.{i}", x, stride=2), 0.02)
        x = F.leaky_relu(self._linear("audio_net.encoder_fc1.0", x.squeeze(-1)), 0.02)
        x = self._linear("audio_net.encoder_fc1.2", x).unflatten(0, (-1, WINDOW))        # [F, 8, 32]
        y = x.transpose(1, 2)
        for i in range(0, 10, 2):
            y = F.leaky_relu(self._conv(f"audio_att_net.attentionConvNet.{i}", y), 0.02)
        weights = self._linear("audio_att_net.attentionNet.0", y.squeeze(1)).softmax(-1)
        audio, eye = (weights[..., None] * x).sum(1), self._blink_code(blink)
        if self.width != AUDIO_WIDTH:
            audio, eye = self._mlp("audio_mlp", audio), self._mlp("eye_mlp", eye)
        camera = torch.cat([w2c[:, :3, :3].transpose(1, 2).flatten(1), w2c[:, :3, 3]], 1)  # camera-to-world rotation
        null = self.t["null_vector"][0].expand(len(audio), -1)
        return torch.stack([audio, eye, self._mlp("cam_mlp", camera), null], 1)

    def features(self, means: Tensor) -> Tensor:
        """The frame-independent features of the Gaussians at `means` [N, 3]: [N, width]."""
        first, last = self.t["tri_plane.grid.aabb"]
        x = (means - first) * (2 / (last - first)) - 1
        levels = []
        for level in range(self.levels):
            product = torch.ones(())
            for plane, axes in enumerate(_PLANES):
                grid = self.t[f"tri_plane.grid.grids.{level}.{plane}"]
                product = product * F.grid_sample(grid, x[None, None, :, list(axes)], align_corners=True,
                                                  padding_mode="border")[0, :, 0]
            levels.append(product)
        return torch.cat(levels).t()

    def move(self, raw: Mapping[str, Tensor], feature: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """The Gaussians of one frame, before activation.

        Args:
            raw: the canonical ones: means, scales, quats, opacities and colors, each [N, ...].
            feature: see `features()`.
            tokens: [4, width] of the frame, see `tokens()`.
        """
        x = feature
        for i in range(self.layers):
            name = f"transformer.layers.{i}"
            x = self._norm(f"{name}.norm1", x + self._attend(name, x, tokens))
            hidden = F.relu(self._linear(f"{name}.ffn.linear1", x))
            x = self._norm(f"{name}.norm2", x + self._linear(f"{name}.ffn.linear2", hidden))
        result = dict(raw)
        kept = self._head("static_mlp", x) if "static_mlp.1.weight" in self.t else torch.ones(len(x), 1)
        for name in self.active:
            value, offset = raw[name], self._head(HEADS[name][0], x)
            scale = torch.ones(()) if name == "quats" else kept.reshape(-1, *[1] * (value.ndim - 1))
            result[name] = value * scale + offset.reshape(value.shape)
        return result

    def _attend(self, layer: str, x: Tensor, tokens: Tensor) -> Tensor:
        name, scale = f"{layer}.enc_dec_attention", (self.width // self.attention_heads) ** 0.5
        if f"{name}.agent_linear.weight" in self.t:  # one head: upstream only scales by the width of several
            tokens = tokens + self.t[f"{layer}.PPE.pe"][0, :len(tokens)]
            count = self.t[f"{name}.attention_proj_layer.weight"].shape[1]
            agents = self._linear(f"{name}.agent_linear", x[:count])
            values = (agents @ tokens.t() / scale).softmax(-1) @ tokens
            return (x @ agents.t() / scale).softmax(-1) @ values
        q, k, v = (self._linear(f"{name}.{part}", value).unflatten(1, (self.attention_heads, -1)).transpose(0, 1)
                   for part, value in (("w_q", x), ("w_k", tokens), ("w_v", tokens)))
        attended = (q @ k.transpose(1, 2) / scale).softmax(-1) @ v                       # [heads, N, width / heads]
        return self._linear(f"{name}.w_concat", attended.transpose(0, 1).flatten(1))

    def _blink_code(self, blink: Tensor) -> Tensor:
        """Sines and cosines of the blink, whose frequencies grow: [F] -> [F, 32]."""
        frequency = 10000 ** (torch.arange(0, AUDIO_WIDTH, 2) / AUDIO_WIDTH)
        angle = (blink.clamp(0, 2) / 2)[:, None] * frequency
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.t[f"{name}.weight"], self.t.get(f"{name}.bias"))

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv1d(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"], stride, padding=1)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        return self._linear(f"{name}.net.1", F.relu(self._linear(f"{name}.net.0", x)))

    def _head(self, name: str, x: Tensor) -> Tensor:
        return self._linear(f"{name}.3", F.relu(self._linear(f"{name}.1", F.relu(x))))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.t[f"{name}.gamma"], self.t[f"{name}.beta"], eps=1e-12)
