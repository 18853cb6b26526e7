/**
 * Gaussians as ellipses in the image, nearest first: EWA splatting as in the kit's CPU rasteriser
 * (`rasterizer/geometry.py`), which follows gsplat 1.5.3.
 */

/**
 * Floats of a splat: centre x and y (px), conic (3), opacity, colour (3), half the edges of its box (2, px), and the
 * square of the standard deviations that it reaches.
 */
export const SPLAT_FLOATS = 12;

const MIN_ALPHA = 1 / 255, EXTENT = 3.33, MAX_CONIC = 1e12, EPS2D = 0.3, NEAR = 0.01, FAR = 1e10;
const C0 = 0.28209479177387814, C1 = 0.4886025119029199;
const C2 = [1.0925484305920792, 0.31539156525252005, 0.5462742152960396];
const C3 = [0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277];

export interface Camera {
  w2c: Float32Array;  // [12], rows of rotation and translation, OpenCV axes
  fx: number; fy: number; cx: number; cy: number;
  size: number;       // px, width and height
}

export class Projection {
  private readonly depths: Float32Array;
  private readonly projected: Float32Array;
  private readonly order: Uint32Array;
  private readonly buffer: Uint32Array;
  private readonly harmonics = new Float32Array(16);

  constructor(private readonly count: number, private readonly width: number, private readonly degree: number) {
    this.depths = new Float32Array(count);
    this.projected = new Float32Array(count * SPLAT_FLOATS);
    this.order = new Uint32Array(count);
    this.buffer = new Uint32Array(count);
  }

  /** Splats of the visible Gaussians, nearest first. `raw` [count, width]: see `Deformation`. */
  splats(raw: Float32Array, camera: Camera): Float32Array {
    const visible = this.project(raw, camera);
    this.sort(visible);
    const out = new Float32Array(visible * SPLAT_FLOATS);
    for (let i = 0; i < visible; i++) {
      const from = this.order[i] * SPLAT_FLOATS;
      for (let j = 0; j < SPLAT_FLOATS; j++) out[i * SPLAT_FLOATS + j] = this.projected[from + j];
    }
    return out;
  }

  private project(raw: Float32Array, { w2c, fx, fy, cx, cy, size }: Camera): number {
    const { projected, depths, order, width } = this;
    const [r00, r01, r02, t0, r10, r11, r12, t1, r20, r21, r22, t2] = w2c;
    // the camera's centre in the head frame: -Rᵀ t
    const ox = -(r00 * t0 + r10 * t1 + r20 * t2), oy = -(r01 * t0 + r11 * t1 + r21 * t2);
    const oz = -(r02 * t0 + r12 * t1 + r22 * t2);
    const highX = (size - cx) / fx + 0.15 * size / fx, lowX = -(cx / fx + 0.15 * size / fx);
    const highY = (size - cy) / fy + 0.15 * size / fy, lowY = -(cy / fy + 0.15 * size / fy);
    let visible = 0;
    for (let n = 0; n < this.count; n++) {
      const at = n * width, px = raw[at], py = raw[at + 1], pz = raw[at + 2];
      const z = r20 * px + r21 * py + r22 * pz + t2;
      const opacity = 1 / (1 + Math.exp(-raw[at + 10]));
      if (!(z >= NEAR && z <= FAR && opacity >= MIN_ALPHA)) continue;
      const x = r00 * px + r01 * py + r02 * pz + t0, y = r10 * px + r11 * py + r12 * pz + t1;
      let w = raw[at + 6], i = raw[at + 7], j = raw[at + 8], k = raw[at + 9];
      const length = Math.sqrt(w * w + i * i + j * j + k * k), inverse = length > 0 ? 1 / length : 0;
      w *= inverse; i *= inverse; j *= inverse; k *= inverse;
      const rz = 1 / z;
      const tx = z * Math.min(highX, Math.max(lowX, x * rz)), ty = z * Math.min(highY, Math.max(lowY, y * rz));
      const j00 = fx * rz, j02 = -fx * tx * rz * rz, j11 = fy * rz, j12 = -fy * ty * rz * rz;
      // rows of J W: image axes in the head frame
      const a0 = j00 * r00 + j02 * r20, a1 = j00 * r01 + j02 * r21, a2 = j00 * r02 + j02 * r22;
      const b0 = j11 * r10 + j12 * r20, b1 = j11 * r11 + j12 * r21, b2 = j11 * r12 + j12 * r22;
      const sx = Math.exp(raw[at + 3]), sy = Math.exp(raw[at + 4]), sz = Math.exp(raw[at + 5]);
      // columns of R(q) diag(s), seen along the image axes
      const x0 = (1 - 2 * (j * j + k * k)) * sx, x1 = 2 * (i * j + w * k) * sx, x2 = 2 * (i * k - w * j) * sx;
      const y0 = 2 * (i * j - w * k) * sy, y1 = (1 - 2 * (i * i + k * k)) * sy, y2 = 2 * (j * k + w * i) * sy;
      const z0 = 2 * (i * k + w * j) * sz, z1 = 2 * (j * k - w * i) * sz, z2 = (1 - 2 * (i * i + j * j)) * sz;
      const ux = a0 * x0 + a1 * x1 + a2 * x2, uy = a0 * y0 + a1 * y1 + a2 * y2, uz = a0 * z0 + a1 * z1 + a2 * z2;
      const vx = b0 * x0 + b1 * x1 + b2 * x2, vy = b0 * y0 + b1 * y1 + b2 * y2, vz = b0 * z0 + b1 * z1 + b2 * z2;
      const a = ux * ux + uy * uy + uz * uz + EPS2D, b = ux * vx + uy * vy + uz * vz;
      const c = vx * vx + vy * vy + vz * vz + EPS2D, det = a * c - b * b;
      if (!(det > 0 && Math.max(a, c) < MAX_CONIC * det)) continue;
      const extent = Math.min(EXTENT, Math.sqrt(2 * Math.log(opacity / MIN_ALPHA)));
      const rx = Math.ceil(extent * Math.sqrt(a)), ry = Math.ceil(extent * Math.sqrt(c));
      const u = fx * x * rz + cx, v = fy * y * rz + cy;
      if (!(u + rx > 0 && u - rx < size && v + ry > 0 && v - ry < size)) continue;
      const to = visible * SPLAT_FLOATS;
      projected[to] = u; projected[to + 1] = v;
      projected[to + 2] = c / det; projected[to + 3] = -b / det; projected[to + 4] = a / det;
      projected[to + 5] = opacity;
      this.color(raw, at + 11, px - ox, py - oy, pz - oz, to + 6);
      projected[to + 9] = rx; projected[to + 10] = ry; projected[to + 11] = extent * extent;
      depths[visible] = z;
      order[visible] = visible++;
    }
    return visible;
  }

  /** Colour of spherical harmonics at `from` of `raw`, seen along a direction, to `to` of `projected`. */
  private color(raw: Float32Array, from: number, dx: number, dy: number, dz: number, to: number): void {
    const { harmonics: h, projected, degree } = this;
    const inverse = 1 / Math.max(Math.hypot(dx, dy, dz), 1e-12), x = dx * inverse, y = dy * inverse, z = dz * inverse;
    h[0] = C0;
    if (degree > 0) { h[1] = -C1 * y; h[2] = C1 * z; h[3] = -C1 * x; }
    if (degree > 1) {
      h[4] = C2[0] * x * y; h[5] = -C2[0] * y * z; h[6] = C2[1] * (3 * z * z - 1); h[7] = -C2[0] * x * z;
      h[8] = C2[2] * (x * x - y * y);
    }
    if (degree > 2) {
      h[9] = -C3[0] * y * (3 * x * x - y * y); h[10] = C3[1] * x * y * z; h[11] = -C3[2] * y * (5 * z * z - 1);
      h[12] = C3[3] * z * (5 * z * z - 3); h[13] = -C3[2] * x * (5 * z * z - 1); h[14] = C3[4] * z * (x * x - y * y);
      h[15] = -C3[0] * x * (x * x - 3 * y * y);
    }
    const count = (degree + 1) ** 2;
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0.5;
      for (let i = 0; i < count; i++) sum += h[i] * raw[from + 3 * i + channel];
      projected[to + channel] = Math.max(sum, 0);
    }
  }

  /** Sort `order` by depth: radix sort of the bits of positive floats, 11 at a time. */
  private sort(visible: number): void {
    const bits = new Uint32Array(this.depths.buffer), counts = new Uint32Array(2048);
    let from = this.order as Uint32Array, to = this.buffer as Uint32Array;
    for (let shift = 0; shift < 33; shift += 11) {
      counts.fill(0);
      for (let i = 0; i < visible; i++) counts[(bits[from[i]] >>> shift) & 2047]++;
      for (let i = 0, total = 0; i < 2048; i++) { const many = counts[i]; counts[i] = total; total += many; }
      for (let i = 0; i < visible; i++) to[counts[(bits[from[i]] >>> shift) & 2047]++] = from[i];
      [from, to] = [to, from];
    }
    if (from !== this.order) this.order.set(from.subarray(0, visible));
  }
}
