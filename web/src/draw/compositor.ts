/**
 * Draws a frame with WebGL2, in one pass: each pixel blends the splats of its tile from the nearest on, until nothing
 * behind can be seen, over torso and plate. Blending by the graphics card, splat by splat, would not stop there: seventy
 * lie over each other in a production head.
 */
import type { Head } from "../container";
import { TILE } from "../head/tiles";
import type { Answer } from "../head/worker";
import { Numbers, program, texture, WIDTH } from "./gl";

/** What is behind the head: the clip's plate, nothing (alpha 0), a colour (0...1), or a picture. */
export type Background = "clip" | "transparent" | { color: [number, number, number] } | { picture: ImageBitmap };

const VERTEX = `
const vec2 corners[3] = vec2[3](vec2(-1, -1), vec2(3, -1), vec2(-1, 3));
void main() { gl_Position = vec4(corners[gl_VertexID], 0.0, 1.0); }`;

const FRAGMENT = `
uniform sampler2D plate, torso, opacity, first, second, own, splats;
uniform usampler2D starts, list;
uniform float size;
uniform float canvas;    // side of plate and torso, px: with a camera that moves, larger than a frame
uniform vec2 shift;      // half images, by which the camera's view of them is moved
uniform vec2 turn;       // cosine and sine of its roll, over its zoom, in frames over canvases
uniform int side;        // points of a torso field along each axis
uniform int tiles;       // along each axis
uniform int background;  // 0 the clip's, 1 transparent, 2 a colour, 3 a picture
uniform vec3 color;
out vec4 result;

ivec2 place(int i) { return ivec2(i % ${WIDTH}, i / ${WIDTH}); }

// colours over black and alpha at a point in px, see gsplat's RasterizeToPixels3DGSFwd.cu
vec4 head(vec2 at) {
  int tile = (int(at.y) / ${TILE}) * tiles + int(at.x) / ${TILE};
  int begin = int(texelFetch(starts, place(tile), 0).r), end = int(texelFetch(starts, place(tile + 1), 0).r);
  float through = 1.0;
  vec3 sum = vec3(0.0);
  for (int i = begin; i < end; i++) {
    int splat = 3 * int(texelFetch(list, place(i), 0).r);
    vec4 where = texelFetch(splats, place(splat), 0), what = texelFetch(splats, place(splat + 1), 0);
    vec2 d = at - where.xy;
    float power = -0.5 * (where.z * d.x * d.x + what.x * d.y * d.y) - where.w * d.x * d.y;
    float alpha = min(0.999, what.y * exp(power));
    if (power > 0.0 || alpha < 1.0 / 255.0) continue;
    float next = through * (1.0 - alpha);
    if (next <= 1e-4) break;
    sum += through * alpha * vec3(what.zw, texelFetch(splats, place(splat + 2), 0).x);
    through = next;
  }
  return vec4(sum, 1.0 - through);
}

void main() {
  vec2 at = vec2(gl_FragCoord.x, size - gl_FragCoord.y);  // px, down from the top
  float points = float(side);
  vec2 off = 2.0 * at / size - 1.0 - shift;
  vec2 place = 0.5 + 0.5 * vec2(turn.x * off.x + turn.y * off.y, turn.x * off.y - turn.y * off.x);  // on the canvas
  // corners of field and canvas coincide
  vec2 grid = ((place * canvas - 0.5) * (points - 1.0) / (canvas - 1.0) + 0.5) / points;
  vec4 bend = texture(first, grid), tint = texture(second, grid);
  vec2 from = place + 0.5 * bend.xy * size / canvas;
  vec3 cloth = clamp(texture(torso, from).rgb + vec3(bend.zw, tint.x), 0.0, 1.0);
  vec2 shape = texture(opacity, from).rg;
  float solid = clamp(shape.x * (1.0 + tint.y), 0.0, 1.0);
  vec3 behind = texture(plate, place).rgb;
  vec4 front = head(at);
  if (background == 0) {
    result = vec4(clamp(front.rgb + (1.0 - front.a) * mix(behind, cloth, solid), 0.0, 1.0), 1.0);
    return;
  }
  // without the plate the torso is opaque inside its outline, with the colours that it has over the plate
  float filled = max(solid, shape.y);
  cloth = clamp((solid * cloth + (filled - solid) * behind) / max(filled, 1e-6), 0.0, 1.0);
  if (background == 1) {
    float alpha = clamp(front.a + (1.0 - front.a) * filled, 0.0, 1.0);
    result = vec4(clamp(front.rgb + (1.0 - front.a) * cloth * filled, 0.0, alpha), alpha);
    return;
  }
  vec3 chosen = background == 2 ? color : texture(own, at / size).rgb;
  result = vec4(clamp(front.rgb + (1.0 - front.a) * mix(chosen, cloth, filled), 0.0, 1.0), 1.0);
}`;

const IMAGES = ["plate", "torso", "opacity", "first", "second", "own"] as const;
const NUMBERS = ["splats", "starts", "list"] as const;

export class Compositor {
  private readonly gl: WebGL2RenderingContext;
  private readonly program: WebGLProgram;
  private readonly images: Record<(typeof IMAGES)[number], WebGLTexture>;
  private readonly numbers: Record<(typeof NUMBERS)[number], Numbers>;
  private readonly choice: Record<"background" | "color" | "shift" | "turn" | "canvas", WebGLUniformLocation | null>;
  private frames = 1;  // sides of a frame in the side of the canvas
  private background: Background = "clip";

  /** `size` of the image in px, `side` of the torso's fields; call `load` before `draw`. */
  constructor(readonly canvas: HTMLCanvasElement, size: number, private readonly side: number) {
    canvas.width = canvas.height = size;
    // kept: photographs of the canvas and recordings are taken after it was shown
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser shows no WebGL2, which the page draws with. Use a current Chrome, Edge, "
      + "Firefox or Safari, and turn hardware acceleration on.");
    this.gl = gl;
    this.program = program(gl, VERTEX, FRAGMENT);
    this.images = Object.fromEntries(IMAGES.map((name) => [name, texture(gl)])) as typeof this.images;
    this.numbers = { splats: new Numbers(gl, true), starts: new Numbers(gl, false), list: new Numbers(gl, false) };
    this.picture("own", null);
    const uniform = (name: string) => gl.getUniformLocation(this.program, name);
    this.choice = { background: uniform("background"), color: uniform("color"), shift: uniform("shift"),
      turn: uniform("turn"), canvas: uniform("canvas") };
    gl.useProgram(this.program);
    [...IMAGES, ...NUMBERS].forEach((name, unit) => gl.uniform1i(uniform(name), unit));
    gl.uniform1f(uniform("size"), size);
    gl.uniform1i(uniform("side"), side);
    gl.uniform1i(uniform("tiles"), Math.ceil(size / TILE));
  }

  /** The images of the head. */
  async load(head: Head): Promise<void> {
    for (const name of ["plate", "torso", "opacity"] as const) {
      const file = new Blob([head.get(`image.${name}`).data as Uint8Array<ArrayBuffer>], { type: "image/webp" });
      const image = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
      this.picture(name, image);
      this.frames = this.canvas.width / image.width;
      this.gl.uniform1f(this.choice.canvas, image.width);
    }
  }

  setBackground(background: Background): void {
    this.background = background;
    if (typeof background === "object" && "picture" in background) this.picture("own", background.picture);
  }

  /** Draw a frame: see `Answer`, `TorsoField.at` and `TorsoField.view`. */
  draw(frame: Pick<Answer, (typeof NUMBERS)[number]>, fields: [Float32Array, Float32Array], view: Float32Array): void {
    const { gl, background, choice } = this;
    for (const name of NUMBERS) this.numbers[name].fill(frame[name]);
    (["first", "second"] as const).forEach((name, i) => {
      gl.bindTexture(gl.TEXTURE_2D, this.images[name]);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, this.side, this.side, 0, gl.RGBA, gl.FLOAT, fields[i]);
    });
    IMAGES.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, this.images[name]);
    });
    NUMBERS.forEach((name, i) => this.numbers[name].bind(IMAGES.length + i));
    gl.activeTexture(gl.TEXTURE0);
    const colored = typeof background === "object" && "color" in background;
    gl.uniform1i(choice.background, background === "clip" ? 0 : background === "transparent" ? 1 : colored ? 2 : 3);
    if (colored) gl.uniform3fv(choice.color, background.color);
    const [x, y, scale, roll] = view, size = this.frames * Math.exp(-scale);
    gl.uniform2f(choice.shift, x, y);
    gl.uniform2f(choice.turn, size * Math.cos(roll), size * Math.sin(roll));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  private picture(to: (typeof IMAGES)[number], image: ImageBitmap | null): void {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, this.images[to]);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    if (image) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }
}
