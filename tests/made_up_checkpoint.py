"""A made-up checkpoint in upstream's files, written without this package, and its network in PyTorch's own layers."""
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, LAYERS, HIDDEN, HEADS, AGENTS = 64, 1, 24, 4, 3  # tests change the first two
HEAD_SIZES = {"pos": 3, "scales": 3, "rotations": 4, "opacity": 1, "shs": 48}


def write_ply(path: Path, means, colors, scale=-2.0, opacity=4.0):
    """Round Gaussians of the given colours 0...1; all 62 properties of the 3DGS layout."""
    n = len(means)
    names = ["x", "y", "z", "nx", "ny", "nz", *[f"f_dc_{i}" for i in range(3)], *[f"f_rest_{i}" for i in range(45)],
             "opacity", *[f"scale_{i}" for i in range(3)], *[f"rot_{i}" for i in range(4)]]
    rows = np.zeros(n, [(name, "<f4") for name in names])
    for i, name in enumerate("xyz"):
        rows[name] = np.asarray(means)[:, i]
        rows[f"f_dc_{i}"] = (np.asarray(colors)[:, i] - 0.5) / 0.28209479177387814
        rows[f"scale_{i}"] = scale
    rows["opacity"], rows["rot_0"] = opacity, 1
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}",
              *[f"property float {name}" for name in names], "end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(header).encode() + rows.tobytes())


class Bag(nn.Module):
    """Modules by dotted name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.randn(WIDTH)) for _ in range(2))


def mlp(inputs):
    return Bag(net=nn.ModuleList([nn.Linear(inputs, 64, bias=False), nn.Linear(64, WIDTH, bias=False)]))


def convolutions(*sizes, stride):
    pairs = zip(sizes, sizes[1:])
    return nn.Sequential(*[m for a, b in pairs for m in (nn.Conv1d(a, b, 3, stride, 1), nn.LeakyReLU(0.02))])


def attention_layer(agents):
    if agents:
        attention = Bag(proj=nn.Linear(WIDTH, WIDTH), attention_proj_layer=nn.Linear(AGENTS, WIDTH),
                        agent_linear=nn.Linear(WIDTH, WIDTH))
    else:
        attention = Bag(**{f"w_{part}": nn.Linear(WIDTH, WIDTH) for part in ("q", "k", "v", "concat")})
    layer = Bag(enc_dec_attention=attention, norm1=Norm(), norm2=Norm(),
                ffn=Bag(linear1=nn.Linear(WIDTH, 40), linear2=nn.Linear(40, WIDTH)))
    if agents:
        layer.PPE = nn.Module()
        layer.PPE.register_buffer("pe", torch.randn(1, 625, WIDTH))
    return layer


def network(agents=False):
    """Upstream's modules, by upstream's names."""
    def head(outputs):
        return nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))

    grids = nn.ModuleList([nn.ParameterList([nn.Parameter(torch.rand(1, WIDTH // 2, size, size + 1)) for _ in range(3)])
                           for size in (5, 9)])
    grid = Bag(grids=grids)
    grid.aabb = nn.Parameter(torch.tensor([[3.0, 2, 4], [-2, -3, -1]]), requires_grad=False)
    net = Bag(tri_plane=Bag(grid=grid, feature_out=nn.Sequential(nn.Linear(WIDTH, HIDDEN))),
              transformer=Bag(layers=nn.ModuleList([attention_layer(agents) for _ in range(LAYERS)])),
              audio_mlp=mlp(32), eye_mlp=mlp(32), cam_mlp=mlp(12),
              audio_net=Bag(encoder_conv=convolutions(29, 32, 32, 64, 64, stride=2),
                            encoder_fc1=nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.02), nn.Linear(64, 32))),
              audio_att_net=Bag(attentionConvNet=convolutions(32, 16, 8, 4, 2, 1, stride=1),
                                attentionNet=nn.Sequential(nn.Linear(8, 8), nn.Softmax(1))),
              enc_x_mlp=mlp(32), **{f"{name}_deform": head(n) for name, n in HEAD_SIZES.items()})
    if agents:
        net.static_mlp = head(1)
    net.null_vector = nn.Parameter(torch.randn(1, 1, WIDTH))
    return Bag(deformation_net=net)


def norm(part, x):
    return part.gamma * F.layer_norm(x, (WIDTH,), eps=1e-12) + part.beta


def attended(layer, x, tokens):
    a = layer.enc_dec_attention
    if hasattr(a, "agent_linear"):
        tokens = tokens + layer.PPE.pe[:, :4]
        agent = a.agent_linear(x[:, :AGENTS])
        scale = (WIDTH // HEADS) ** -0.5
        values = F.scaled_dot_product_attention(agent, tokens, tokens, scale=scale)
        return F.scaled_dot_product_attention(x, agent, values, scale=scale)
    library = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    library.in_proj_weight.copy_(torch.cat([a.w_q.weight, a.w_k.weight, a.w_v.weight]))
    library.in_proj_bias.copy_(torch.cat([a.w_q.bias, a.w_k.bias, a.w_v.bias]))
    library.out_proj.load_state_dict(a.w_concat.state_dict())
    return library(x, tokens, tokens, need_weights=False)[0]


@torch.no_grad()
def moved(whole, points, features, blink, w2c, frame):
    """Offsets of positions, scales, rotations, opacities and harmonics, and the share that is kept of what they are
    added to, from PyTorch's own layers, one by one."""
    net = whole.deformation_net
    windows = [features[i] if 0 <= i < len(features) else torch.zeros(16, 29) for i in range(frame - 4, frame + 4)]
    codes = torch.stack([net.audio_net.encoder_fc1(net.audio_net.encoder_conv(w.t()[None])[0, :, 0]) for w in windows])
    share = net.audio_att_net.attentionNet(net.audio_att_net.attentionConvNet(codes.t()[None])[0])[0]

    def run(part, x):
        return part.net[1](F.relu(part.net[0](x)))

    value = min(max(float(blink[frame]), 0), 2) / 2
    eye = torch.tensor([f(value * 10000 ** (2 * k / 32)) for k in range(16) for f in (np.sin, np.cos)]).float()
    camera = torch.cat([w2c[frame, :3, :3].inverse().flatten(), w2c[frame, :3, 3]])
    audio = share @ codes
    if WIDTH != 32:  # upstream leaves these two out at the audio network's own width
        audio, eye = run(net.audio_mlp, audio), run(net.eye_mlp, eye)
    tokens = torch.stack([audio, eye, run(net.cam_mlp, camera), net.null_vector[0, 0]])[None]
    high, low = net.tri_plane.grid.aabb
    unit = 2 * (points - high) / (low - high) - 1
    x = torch.cat([torch.stack([F.grid_sample(plane, unit[:, axes][None, :, None], align_corners=True)[0, :, :, 0]
                                for plane, axes in zip(planes, ([0, 1], [0, 2], [1, 2]))]).prod(0)
                   for planes in net.tri_plane.grid.grids]).t()[None]
    for layer in net.transformer.layers:
        x = norm(layer.norm1, x + attended(layer, x, tokens))
        x = norm(layer.norm2, x + layer.ffn.linear2(F.relu(layer.ffn.linear1(x))))
    x = x[0]
    kept = net.static_mlp(x) if hasattr(net, "static_mlp") else torch.ones(len(x), 1)
    return [getattr(net, f"{name}_deform")(x) for name in HEAD_SIZES], kept


def write_checkpoint(folder: Path, agents=False, iteration=30000, means=((0, 0, 0), (1, 0.5, 0), (0, -1, 0.5)),
                     colors=((1, 0, 0), (0, 1, 0), (0, 0, 1)), switches="no_do=False, no_dshs=False"):
    """A model's folder as upstream leaves it; returns the network."""
    torch.manual_seed(4)
    place = folder / "point_cloud" / f"iteration_{iteration}"
    write_ply(place / "point_cloud.ply", means, colors)
    whole = network(agents)
    torch.save({**whole.state_dict(), "pos_poc": torch.ones(10)}, place / "deformation.pth")
    (folder / "cfg_args").write_text(f"Namespace(source_path='data', n_head={HEADS}, {switches}, multires=[1, 2])")
    return whole
