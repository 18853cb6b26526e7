"""A dense float64 rasteriser in plain torch: every pixel against every Gaussian, differentiable by autograd.

It is the yardstick of the rasteriser's tests and shares no code with it. Slow by design: keep
width * height * N below some ten millions.
"""

import torch

MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 1 / 255, 0.999, 1e-4


def rotation_matrix(quats):
    """[..., 4] wxyz, of any length -> [..., 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y**2 + z**2), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x**2 + z**2), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x**2 + y**2)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def harmonics(degree, dirs, coeffs):
    """Real spherical harmonics in the 3DGS convention: dirs [N, 3], coeffs [N, K, 3] -> [N, 3]."""
    x, y, z = torch.nn.functional.normalize(dirs, dim=-1).unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z]
        basis += [0.31539156525252005 * (2 * z * z - x * x - y * y), -1.0925484305920792 * x * z]
        basis += [0.5462742152960396 * (x * x - y * y)]
    if degree >= 3:
        basis += [-0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
        basis += [-0.4570457994644658 * y * (4 * z * z - x * x - y * y)]
        basis += [0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        basis += [-0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y)]
        basis += [-0.5900435899266435 * x * (x * x - 3 * y * y)]
    return (torch.stack(basis, -1)[..., None] * coeffs[..., : len(basis), :]).sum(-2)


def project(means, quats, scales, opacities, view, K, width, height, near, far, radius_clip, eps2d):
    """One camera: means2d [N, 2], depths [N], conics [N, 2, 2], radii int [N, 2] (0 where culled)."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    local = means @ view[:3, :3].T + view[:3, 3]
    x, y, depth = local.unbind(-1)
    z = torch.where((depth >= near) & (depth <= far), depth, torch.ones_like(depth))
    slack_x, slack_y = 0.15 * width / fx, 0.15 * height / fy
    limited_x = z * torch.clamp(x / z, -cx / fx - slack_x, (width - cx) / fx + slack_x)
    limited_y = z * torch.clamp(y / z, -cy / fy - slack_y, (height - cy) / fy + slack_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * limited_x / z**2, zero, fy / z, -fy * limited_y / z**2], -1).view(-1, 2, 3)
    axes = J @ view[:3, :3] @ rotation_matrix(quats) * scales[:, None, :]
    cov = axes @ axes.transpose(-1, -2) + eps2d * torch.eye(2, dtype=means.dtype)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1))).clamp(max=3.33)
        radii = torch.ceil(extent[:, None] * torch.diagonal(cov, dim1=-2, dim2=-1).sqrt())
        seen = (depth >= near) & (depth <= far) & (opacities >= MIN_ALPHA) & (radii > radius_clip).any(-1)
        size = torch.tensor([width, height])
        seen &= ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        radii = torch.where(seen[:, None], radii, torch.zeros_like(radii)).long()
    return means2d, depth, torch.linalg.inv(cov), radii


def blend(means2d, depths, conics, radii, opacities, colors, background, width, height):
    """One camera: image [H, W, D], alpha [H, W, 1], and where [H, W] a decision hangs on the last digits.

    Float32 cannot be expected to take the same side of a threshold at such pixels.
    """
    order = torch.argsort(depths, stable=True)
    order = order[(radii[order] > 0).all(-1)]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    T = torch.ones(height, width, dtype=colors.dtype)
    image = torch.zeros(height, width, colors.shape[-1], dtype=colors.dtype)
    done, doubtful = torch.zeros(height, width, dtype=torch.bool), torch.zeros(height, width, dtype=torch.bool)
    for n in order.tolist():
        (a, b), (_, c) = conics[n]
        dx, dy = means2d[n, 0] - u, means2d[n, 1] - v
        alpha = opacities[n] * torch.exp(-(0.5 * a * dx * dx + b * dx * dy + 0.5 * c * dy * dy))
        alpha = alpha.clamp(max=MAX_ALPHA)
        near_threshold = ~done & ((alpha.detach() / MIN_ALPHA - 1).abs() < 1e-4)
        alpha = alpha * ((alpha.detach() >= MIN_ALPHA) & ~done)
        left = T * (1 - alpha)
        doubtful |= near_threshold | (~done & ((left.detach() / MIN_TRANSMITTANCE - 1).abs() < 1e-3))
        done = done | (left.detach() <= MIN_TRANSMITTANCE)
        image = image + (alpha * T * ~done)[..., None] * colors[n]
        T = torch.where(done, T, left)
    return image + T[..., None] * background, 1 - T[..., None], doubtful


def rasterize(means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree=None, near_plane=0.01,
              far_plane=1e10, radius_clip=0.0, eps2d=0.3, backgrounds=None, render_mode="RGB"):  # fmt: skip
    """`egstalker_nb.rasterize` without batch dimensions, in float64; info also holds `doubtful` [C, H, W].

    info["means2d"] is a list of one [N, 2] tensor per camera, each with `retain_grad()` called.
    """
    images, alphas, info = [], [], dict(means2d=[], radii=[], doubtful=[])
    for c in range(len(viewmats)):
        limits = near_plane, far_plane, radius_clip, eps2d
        means2d, depths, conics, radii = project(
            means, quats, scales, opacities, viewmats[c], Ks[c], width, height, *limits
        )
        if means2d.requires_grad:
            means2d.retain_grad()
        own = colors[c] if colors.dim() == (3 if sh_degree is None else 4) else colors
        if sh_degree is not None:
            eye = torch.linalg.inv(viewmats[c])[:3, 3]
            own = (harmonics(sh_degree, means - eye, own) + 0.5).clamp(min=0)
        parts = [own] if render_mode.startswith("RGB") else []
        background = torch.zeros(own.shape[-1]) if backgrounds is None else backgrounds[c]
        if render_mode != "RGB":
            parts.append(depths[:, None])
            background = torch.cat([background, torch.zeros(1)]) if len(parts) == 2 else torch.zeros(1)
        features = torch.cat(parts, -1)
        image, alpha, doubtful = blend(
            means2d, depths, conics, radii, opacities, features, background.to(features), width, height
        )
        if render_mode.endswith("ED"):
            image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], -1)
        images.append(image)
        alphas.append(alpha)
        for key, value in zip(("means2d", "radii", "doubtful"), (means2d, radii, doubtful)):
            info[key].append(value)
    info.update(radii=torch.stack(info["radii"]), doubtful=torch.stack(info["doubtful"]))
    return torch.stack(images), torch.stack(alphas), info
