"""Numba kernels of the CPU rasteriser: projection of 3D Gaussians, spherical harmonics, and their gradients.

Every kernel takes `(first, step)` and processes the items first, first + step, ...; results of items are independent,
so any number of threads gives bit-identical results. Arithmetic is float64 (thin Gaussians lose their determinant in
float32), inputs and outputs are float32.

The maths is EWA splatting as in gsplat 1.5.3 (`ProjectionEWA3DGSFused.cu`, `SphericalHarmonicsCUDA.cu`), with the
covariance kept as a product: cov2d = U Uᵀ + eps2d I, U = J W R(q) diag(s), where J is the Jacobian of the projection
and W the camera rotation. The product form cannot lose positive definiteness to rounding.
"""
from __future__ import annotations

import math

import numpy as np

from ..core.numba_jit import helper, jit

MIN_ALPHA = 1.0 / 255.0  # contributions below one 8-bit step are skipped
EXTENT = 3.33  # standard deviations at which an opaque Gaussian falls to MIN_ALPHA
MAX_CONIC = 1e12  # 1/px²; sharper footprints (only with eps2d = 0) would overflow float32 and are culled
MAX_RADIUS = 2.0**30  # pixels; keeps the int32 radii of degenerate Gaussians in range

Limits = tuple[float, float, float, float]  # near plane, far plane, radius_clip, eps2d
Jacobian = tuple[float, float, float, float, float, float, bool, bool]  # see `_jacobian`


@helper
def _rotation(w: float, x: float, y: float, z: float) -> tuple[float, ...]:
    """Rotation matrix (row by row) of the quaternion, which need not be normalised."""
    n2 = w * w + x * x + y * y + z * z
    inv = 1.0 / math.sqrt(n2) if n2 > 0.0 else 0.0  # the zero quaternion counts as no rotation
    w, x, y, z = w * inv, x * inv, y * inv, z * inv
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@helper
def _factor(view: np.ndarray, quat: np.ndarray, scale: np.ndarray, g: np.ndarray, m: np.ndarray) -> None:
    """Fill m = R(q) diag(s) and g = W m; the Gaussian's covariance in camera axes is g gᵀ."""
    r = _rotation(float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3]))
    for j in range(3):
        m[0, j], m[1, j], m[2, j] = r[j] * scale[j], r[3 + j] * scale[j], r[6 + j] * scale[j]
    for i in range(3):
        for j in range(3):
            g[i, j] = view[i, 0] * m[0, j] + view[i, 1] * m[1, j] + view[i, 2] * m[2, j]


@helper
def _jacobian(x: float, y: float, z: float, cam: np.ndarray, width: int, height: int) -> Jacobian:
    """(J00, J02, J11, J12, tx, ty, x_inside, y_inside) with the off-axis angle limited as in gsplat."""
    fx, fy, cx, cy = float(cam[0, 0]), float(cam[1, 1]), float(cam[0, 2]), float(cam[1, 2])
    rz = 1.0 / z
    high_x, low_x = (width - cx) / fx + 0.15 * width / fx, -(cx / fx + 0.15 * width / fx)
    high_y, low_y = (height - cy) / fy + 0.15 * height / fy, -(cy / fy + 0.15 * height / fy)
    tx, ty = z * min(high_x, max(low_x, x * rz)), z * min(high_y, max(low_y, y * rz))
    x_inside, y_inside = low_x <= x * rz <= high_x, low_y <= y * rz <= high_y
    return fx * rz, -fx * tx * rz * rz, fy * rz, -fy * ty * rz * rz, tx, ty, x_inside, y_inside


@jit
def project_forward(first: int, step: int, means: np.ndarray, quats: np.ndarray, scales: np.ndarray,
                    opacities: np.ndarray, views: np.ndarray, cams: np.ndarray, width: int, height: int,
                    limits: Limits, means2d: np.ndarray, depths: np.ndarray, conics: np.ndarray, radii: np.ndarray
                   ) -> None:
    """Project [B, N] Gaussians into [B, C] cameras; items are the Gaussians, in every one of the B * C images.

    Culled Gaussians get radius 0 and zeros in all outputs. Conditions are written so that NaN is culled.
    """
    near, far, clip, eps2d = limits
    cameras, count = views.shape[1], means.shape[1]
    g, m = np.empty((3, 3)), np.empty((3, 3))
    for image in range(views.shape[0] * cameras):
        b, c = image // cameras, image % cameras
        view, cam = views[b, c], cams[b, c]
        for n in range(first, count, step):
            out = image * count + n
            means2d[out, 0] = means2d[out, 1] = depths[out] = 0.0
            conics[out, 0] = conics[out, 1] = conics[out, 2] = 0.0
            radii[out, 0] = radii[out, 1] = 0
            p = means[b, n]
            x = float(view[0, 0]) * p[0] + float(view[0, 1]) * p[1] + float(view[0, 2]) * p[2] + view[0, 3]
            y = float(view[1, 0]) * p[0] + float(view[1, 1]) * p[1] + float(view[1, 2]) * p[2] + view[1, 3]
            z = float(view[2, 0]) * p[0] + float(view[2, 1]) * p[1] + float(view[2, 2]) * p[2] + view[2, 3]
            opacity = float(opacities[b, n])
            if not (near <= z <= far and opacity >= MIN_ALPHA):
                continue
            _factor(view, quats[b, n], scales[b, n], g, m)
            j00, j02, j11, j12, _, _, _, _ = _jacobian(x, y, z, cam, width, height)
            a = bb = cc = 0.0
            for j in range(3):
                u0, u1 = j00 * g[0, j] + j02 * g[2, j], j11 * g[1, j] + j12 * g[2, j]
                a, bb, cc = a + u0 * u0, bb + u0 * u1, cc + u1 * u1
            a, cc = a + eps2d, cc + eps2d
            det = a * cc - bb * bb
            if not (det > 0.0 and max(a, cc) < MAX_CONIC * det):
                continue
            extent = min(EXTENT, math.sqrt(2.0 * math.log(opacity / MIN_ALPHA)))
            rx, ry = math.ceil(extent * math.sqrt(a)), math.ceil(extent * math.sqrt(cc))
            u, v = float(cam[0, 0]) * x / z + cam[0, 2], float(cam[1, 1]) * y / z + cam[1, 2]
            if rx <= clip and ry <= clip:
                continue
            if not (u + rx > 0 and u - rx < width and v + ry > 0 and v - ry < height):
                continue
            radii[out, 0], radii[out, 1] = np.int32(min(rx, MAX_RADIUS)), np.int32(min(ry, MAX_RADIUS))
            means2d[out, 0], means2d[out, 1], depths[out] = u, v, z
            conics[out, 0], conics[out, 1], conics[out, 2] = cc / det, -bb / det, a / det


@helper
def _rotation_gradient(quat: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
    """Add to out [4] the gradient of the unnormalised quaternion, given that of its rotation matrix, v [3, 3]."""
    w, x, y, z = float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3])
    n2 = w * w + x * x + y * y + z * z
    if not n2 > 0.0:
        return
    inv = 1.0 / math.sqrt(n2)
    w, x, y, z = w * inv, x * inv, y * inv, z * inv
    dw = 2 * (x * (v[2, 1] - v[1, 2]) + y * (v[0, 2] - v[2, 0]) + z * (v[1, 0] - v[0, 1]))
    dx = 2 * (
        -2 * x * (v[1, 1] + v[2, 2]) + y * (v[1, 0] + v[0, 1]) + z * (v[2, 0] + v[0, 2]) + w * (v[2, 1] - v[1, 2])
    )
    dy = 2 * (x * (v[1, 0] + v[0, 1]) - 2 * y * (v[0, 0] + v[2, 2]) + z * (v[2, 1] + v[1, 2]) + w * (v[0, 2] - v[2, 0]))
    dz = 2 * (x * (v[2, 0] + v[0, 2]) + y * (v[2, 1] + v[1, 2]) - 2 * z * (v[0, 0] + v[1, 1]) + w * (v[1, 0] - v[0, 1]))
    along = dw * w + dx * x + dy * y + dz * z  # the length of the quaternion has no effect
    out[0] += (dw - along * w) * inv
    out[1] += (dx - along * x) * inv
    out[2] += (dy - along * y) * inv
    out[3] += (dz - along * z) * inv


@helper
def _footprint_gradient(conic: np.ndarray, v_conic: np.ndarray) -> tuple[float, float, float]:
    """Gradients of cov2d's (xx, xy, yy) from those of its inverse, the conic: -K V K."""
    ka, kb, kc = float(conic[0]), float(conic[1]), float(conic[2])
    va, vb, vc = float(v_conic[0]), 0.5 * v_conic[1], float(v_conic[2])
    p, q = ka * va + kb * vb, ka * vb + kb * vc
    r, s = kb * va + kc * vb, kb * vb + kc * vc
    return -(p * ka + q * kb), -2 * (p * kb + q * kc), -(r * kb + s * kc)


@helper
def _point_gradient(x: float, y: float, z: float, cam: np.ndarray, jac: Jacobian, v_mean2d: np.ndarray, v_depth: float,
                    v_jac: tuple[float, float, float, float], out: np.ndarray) -> None:
    """Fill out [3] with the gradient of the camera-space mean, from those of its 2D mean, depth and Jacobian."""
    fx, fy = float(cam[0, 0]), float(cam[1, 1])
    rz = 1.0 / z
    vx, vy = float(v_mean2d[0]), float(v_mean2d[1])
    _, _, _, _, tx, ty, x_inside, y_inside = jac
    v00, v02, v11, v12 = v_jac
    rz2, rz3 = rz * rz, rz * rz * rz
    out[0], out[1] = fx * rz * vx, fy * rz * vy
    out[2] = v_depth - (fx * x * vx + fy * y * vy) * rz2 - (fx * v00 + fy * v11) * rz2
    out[2] += 2 * (fx * tx * v02 + fy * ty * v12) * rz3
    if x_inside:
        out[0] -= fx * rz2 * v02
    else:
        out[2] -= fx * tx * rz3 * v02
    if y_inside:
        out[1] -= fy * rz2 * v12
    else:
        out[2] -= fy * ty * rz3 * v12


@jit
def project_backward(first: int, step: int, means: np.ndarray, quats: np.ndarray, scales: np.ndarray,
                     views: np.ndarray, cams: np.ndarray, width: int, height: int, radii: np.ndarray,
                     conics: np.ndarray, v_means2d: np.ndarray, v_depths: np.ndarray, v_conics: np.ndarray,
                     v_means: np.ndarray, v_quats: np.ndarray, v_scales: np.ndarray, v_views: np.ndarray) -> None:
    """Gradients of `project_forward`; items are Gaussians, summed over their cameras in order.

    v_means, v_quats, v_scales [B, N, .] must hold zeros. v_views is [B * C, N, 3, 4], or empty (N = 0) if the cameras
    need no gradient.
    """
    cameras, count, with_views = views.shape[1], means.shape[1], v_views.shape[1] > 0
    g, m, v_g, v_m, v_p = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for image in range(views.shape[0] * cameras):
        b, c = image // cameras, image % cameras
        view, cam = views[b, c], cams[b, c]
        for n in range(first, count, step):
            i = image * count + n
            if radii[i, 0] <= 0:
                continue
            p, scale = means[b, n], scales[b, n]
            x = float(view[0, 0]) * p[0] + float(view[0, 1]) * p[1] + float(view[0, 2]) * p[2] + view[0, 3]
            y = float(view[1, 0]) * p[0] + float(view[1, 1]) * p[1] + float(view[1, 2]) * p[2] + view[1, 3]
            z = float(view[2, 0]) * p[0] + float(view[2, 1]) * p[1] + float(view[2, 2]) * p[2] + view[2, 3]
            _factor(view, quats[b, n], scale, g, m)
            jac = _jacobian(x, y, z, cam, width, height)
            j00, j02, j11, j12 = jac[0], jac[1], jac[2], jac[3]
            va, vb, vc = _footprint_gradient(conics[i], v_conics[i])
            v00 = v02 = v11 = v12 = 0.0
            for j in range(3):
                u0, u1 = j00 * g[0, j] + j02 * g[2, j], j11 * g[1, j] + j12 * g[2, j]
                v_u0, v_u1 = 2 * va * u0 + vb * u1, 2 * vc * u1 + vb * u0
                v_g[0, j], v_g[1, j], v_g[2, j] = j00 * v_u0, j11 * v_u1, j02 * v_u0 + j12 * v_u1
                v00, v02 = v00 + v_u0 * g[0, j], v02 + v_u0 * g[2, j]
                v11, v12 = v11 + v_u1 * g[1, j], v12 + v_u1 * g[2, j]
            _point_gradient(x, y, z, cam, jac, v_means2d[i], v_depths[i], (v00, v02, v11, v12), v_p)
            for k in range(3):
                v_means[b, n, k] += view[0, k] * v_p[0] + view[1, k] * v_p[1] + view[2, k] * v_p[2]
                for j in range(3):
                    v_m[k, j] = view[0, k] * v_g[0, j] + view[1, k] * v_g[1, j] + view[2, k] * v_g[2, j]
            if with_views:
                for k in range(3):
                    v_views[image, n, k, 3] = v_p[k]
                    for j in range(3):
                        rotated = v_g[k, 0] * m[j, 0] + v_g[k, 1] * m[j, 1] + v_g[k, 2] * m[j, 2]
                        v_views[image, n, k, j] = v_p[k] * p[j] + rotated
            r = _rotation(float(quats[b, n, 0]), float(quats[b, n, 1]), float(quats[b, n, 2]), float(quats[b, n, 3]))
            for j in range(3):
                v_scales[b, n, j] += v_m[0, j] * r[j] + v_m[1, j] * r[3 + j] + v_m[2, j] * r[6 + j]
                v_m[0, j], v_m[1, j], v_m[2, j] = v_m[0, j] * scale[j], v_m[1, j] * scale[j], v_m[2, j] * scale[j]
            _rotation_gradient(quats[b, n], v_m, v_quats[b, n])


@helper
def _basis(degree: int, x: float, y: float, z: float, y_out: np.ndarray) -> None:
    """Fill y_out with the (degree + 1)² real spherical harmonics of the unit vector, degree 0 to 3."""
    y_out[0] = 0.28209479177387814
    if degree > 0:
        y_out[1], y_out[2], y_out[3] = -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x
    if degree > 1:
        y_out[4], y_out[5] = 1.0925484305920792 * x * y, -1.0925484305920792 * y * z
        y_out[6] = 0.9461746957575601 * z * z - 0.31539156525252005
        y_out[7], y_out[8] = -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)
    if degree > 2:
        five = 2.285228997322329 * z * z - 0.4570457994644658
        y_out[9] = -0.5900435899266435 * y * (3 * x * x - y * y)
        y_out[10], y_out[11] = 2.890611442640554 * x * y * z, -five * y
        y_out[12] = z * (1.865881662950577 * z * z - 1.1195289977703462)
        y_out[13], y_out[14] = -five * x, 1.445305721320277 * z * (x * x - y * y)
        y_out[15] = -0.5900435899266435 * x * (x * x - 3 * y * y)


@helper
def _basis_gradient(degree: int, x: float, y: float, z: float, s: np.ndarray) -> tuple[float, float, float]:
    """Gradient (x, y, z) of sum_k s[k] * Y_k, with the polynomials of `_basis`."""
    gx = gy = gz = 0.0
    if degree > 0:
        gx, gy, gz = -0.4886025119029199 * s[3], -0.4886025119029199 * s[1], 0.4886025119029199 * s[2]
    if degree > 1:
        gx += 1.0925484305920792 * (y * s[4] - z * s[7] + x * s[8])
        gy += 1.0925484305920792 * (x * s[4] - z * s[5] - y * s[8])
        gz += 1.8923493915151202 * z * s[6] - 1.0925484305920792 * (y * s[5] + x * s[7])
    if degree > 2:
        five = 2.285228997322329 * z * z - 0.4570457994644658
        gx += -3.540261539559861 * x * y * s[9] + 2.890611442640554 * y * z * s[10] - five * s[13]
        gx += 2.890611442640554 * x * z * s[14] - 1.7701307697799304 * (x * x - y * y) * s[15]
        gy += -1.7701307697799304 * (x * x - y * y) * s[9] + 2.890611442640554 * x * z * s[10] - five * s[11]
        gy += -2.890611442640554 * y * z * s[14] + 3.540261539559861 * x * y * s[15]
        gz += 2.890611442640554 * x * y * s[10] - 4.570457994644658 * z * (y * s[11] + x * s[13])
        gz += (5.597644988851731 * z * z - 1.1195289977703462) * s[12] + 1.445305721320277 * (x * x - y * y) * s[14]
    return gx, gy, gz


@helper
def _direction(mean: np.ndarray, center: np.ndarray) -> tuple[float, float, float, float]:
    """Unit vector from the camera centre to the Gaussian, and the inverse of their distance (0 if they coincide)."""
    x, y, z = float(mean[0]) - center[0], float(mean[1]) - center[1], float(mean[2]) - center[2]
    n2 = x * x + y * y + z * z
    inv = 1.0 / math.sqrt(n2) if n2 > 0.0 else 0.0
    return x * inv, y * inv, z * inv, inv


@jit
def harmonics_forward(first: int, step: int, degree: int, means: np.ndarray, centers: np.ndarray, coeffs: np.ndarray,
                      radii: np.ndarray, colors: np.ndarray) -> None:
    """Colours [B * C, N, 3] = max(0, harmonics + 0.5), of coefficients [B, C or 1, N, K, 3] and centers [B, C, 3].

    Items are Gaussians. Culled ones get the colour 0.5 without evaluating the harmonics.
    """
    cameras, per_camera = centers.shape[1], coeffs.shape[1] > 1
    basis, bases = np.empty(16), (degree + 1) ** 2
    for image in range(centers.shape[0] * cameras):
        b, c = image // cameras, image % cameras
        for n in range(first, means.shape[1], step):
            if radii[image, n, 0] <= 0:
                colors[image, n, 0] = colors[image, n, 1] = colors[image, n, 2] = 0.5
                continue
            x, y, z, _ = _direction(means[b, n], centers[b, c])
            _basis(degree, x, y, z, basis)
            sh = coeffs[b, c if per_camera else 0, n]
            for channel in range(3):
                value = 0.5
                for k in range(bases):
                    value += basis[k] * sh[k, channel]
                colors[image, n, channel] = max(0.0, value)


@jit
def harmonics_backward(first: int, step: int, degree: int, means: np.ndarray, centers: np.ndarray, coeffs: np.ndarray,
                       radii: np.ndarray, colors: np.ndarray, v_colors: np.ndarray, v_dirs: np.ndarray,
                       v_coeffs: np.ndarray) -> None:
    """Gradients of `harmonics_forward`: v_dirs [B * C, N, 3] (of mean - center) and v_coeffs, which must hold zeros."""
    cameras, per_camera = centers.shape[1], coeffs.shape[1] > 1
    basis, weight, v, bases = np.empty(16), np.empty(16), np.empty(3), (degree + 1) ** 2
    for image in range(centers.shape[0] * cameras):
        b, c = image // cameras, image % cameras
        for n in range(first, means.shape[1], step):
            if radii[image, n, 0] <= 0:
                continue
            x, y, z, inv = _direction(means[b, n], centers[b, c])
            _basis(degree, x, y, z, basis)
            slot = c if per_camera else 0
            for channel in range(3):  # a colour clamped at 0 has no gradient
                v[channel] = v_colors[image, n, channel] if colors[image, n, channel] > 0.0 else 0.0
            for k in range(bases):
                weight[k] = 0.0
                for channel in range(3):
                    v_coeffs[b, slot, n, k, channel] += basis[k] * v[channel]
                    weight[k] += coeffs[b, slot, n, k, channel] * v[channel]
            gx, gy, gz = _basis_gradient(degree, x, y, z, weight)
            along = gx * x + gy * y + gz * z  # only the direction counts, not the distance
            v_dirs[image, n, 0] = (gx - along * x) * inv
            v_dirs[image, n, 1] = (gy - along * y) * inv
            v_dirs[image, n, 2] = (gz - along * z) * inv
