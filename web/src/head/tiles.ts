/** Which splats reach which tile of the image, nearest first, as in gsplat, whose tiles are of 16 px. */
import { SPLAT_FLOATS } from "./projection";

/** Edge of a tile, px. */
export const TILE = 8;

export class Tiles {
  /** Tiles along each axis. */
  readonly side: number;
  /** [side² + 1] where the splats of each tile begin in `list`. */
  readonly starts: Uint32Array;
  /** Numbers of splats; a row is a tile. */
  list = new Uint32Array(1 << 16);
  private readonly counts: Uint32Array;
  private readonly spans: Int32Array;  // [2 side] first tile and one past the last of each row of tiles

  constructor(size: number) {
    this.side = Math.ceil(size / TILE);
    this.starts = new Uint32Array(this.side ** 2 + 1);
    this.counts = new Uint32Array(this.side ** 2);
    this.spans = new Int32Array(2 * this.side);
  }

  /** Fill `starts` and `list` for splats that are sorted by depth. */
  fill(splats: Float32Array): void {
    const { starts, counts, side } = this, visible = splats.length / SPLAT_FLOATS;
    counts.fill(0);
    for (let n = 0; n < visible; n++) this.each(splats, n, (tile) => { counts[tile]++; });
    for (let t = 0, total = 0; t < side ** 2; t++) {
      starts[t] = total;
      total += counts[t];
      counts[t] = starts[t];
      starts[t + 1] = total;
    }
    if (this.list.length < starts[side ** 2]) this.list = new Uint32Array(2 * starts[side ** 2]);
    const { list } = this;
    for (let n = 0; n < visible; n++) this.each(splats, n, (tile) => { list[counts[tile]++] = n; });
  }

  /** Call `found` for each tile that the ellipse of splat `n` reaches. */
  private each(splats: Float32Array, n: number, found: (tile: number) => void): void {
    const { side, spans } = this, at = n * SPLAT_FLOATS;
    const v = splats[at + 1], ry = splats[at + 10];
    const first = Math.max(0, Math.floor((v - ry) / TILE)), last = Math.min(side, Math.ceil((v + ry) / TILE));
    this.spanRows(splats, at, first, last);
    for (let row = first; row < last; row++)
      for (let tile = spans[2 * row]; tile < spans[2 * row + 1]; tile++) found(row * side + tile);
  }

  /** The tiles of each row from `first` to `last` between the ellipse's left and right ends there. */
  private spanRows(splats: Float32Array, at: number, first: number, last: number): void {
    const { side, spans } = this;
    const u = splats[at], v = splats[at + 1], a = splats[at + 2], b = splats[at + 3], c = splats[at + 4];
    const level = splats[at + 11], det = a * c - b * b, rx = splats[at + 9];
    const wide = Math.sqrt(level * c / det), atWide = -b / c * wide;  // the rightmost point, and its row
    for (let row = first; row < last; row++) {
      const up = row * TILE - v, down = up + TILE;
      let left = -rx, right = rx;
      if (det > 1e-6 * a * c) {  // otherwise so thin that its determinant is all rounding
        right = atWide >= up && atWide <= down ? wide : end(a, b, det, level, atWide < up ? up : down, 1);
        left = -atWide >= up && -atWide <= down ? -wide : end(a, b, det, level, -atWide < up ? up : down, -1);
      }
      spans[2 * row] = Math.max(0, Math.floor((u + left - 1) / TILE));
      spans[2 * row + 1] = Math.min(side, Math.ceil((u + right + 1) / TILE));
    }
  }
}

/** The right (+1) or left (-1) end of the ellipse a x² + 2 b x y + c y² = level at height y; its middle beyond it. */
function end(a: number, b: number, det: number, level: number, y: number, sign: number): number {
  return -b / a * y + sign * Math.sqrt(Math.max(0, level - det / a * y * y) / a);
}
