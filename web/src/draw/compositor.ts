/** Draws a frame with WebGL2: splats into a half-float image, then plate, torso and splats into the canvas. */
import type { Head } from "../container";
import { SPLAT_FLOATS } from "../head/projection";
import { program, texture } from "./gl";

/** What is behind the head: the clip's plate, a colour (0...1), a picture, or nothing (alpha 0). */
export type Background = "clip" | "transparent" | { color: [number, number, number] } | { picture: ImageBitmap };

const SPLAT_VERTEX = `
layout(location = 0) in vec2 corner;
layout(location = 1) in vec4 where;    // centre (px), conic xx and xy
layout(location = 2) in vec4 what;     // conic yy, opacity, red, green
layout(location = 3) in vec3 rest;     // blue, half the edges of the box (px)
uniform float size;
out vec2 offset;
flat out vec3 conic;
flat out vec4 color;
void main() {
  offset = corner * rest.yz;
  conic = vec3(where.zw, what.x);
  color = vec4(what.zw, rest.x, what.y);
  gl_Position = vec4((where.xy + offset) / size * 2.0 - 1.0, 0.0, 1.0);
}`;
// row 0 of the image is the lowest of the texture; the composition below turns it around
const SPLAT_FRAGMENT = `
in vec2 offset;
flat in vec3 conic;
flat in vec4 color;
out vec4 result;
void main() {
  float power = -0.5 * (conic.x * offset.x * offset.x + conic.z * offset.y * offset.y) - conic.y * offset.x * offset.y;
  float alpha = min(0.999, color.a * exp(power));
  if (power > 0.0 || alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;
const COMPOSE_VERTEX = `
layout(location = 0) in vec2 corner;
void main() { gl_Position = vec4(corner, 0.0, 1.0); }`;
const COMPOSE_FRAGMENT = `
uniform sampler2D splats, plate, torso, opacity, first, second, own;
uniform float size, side;
uniform int background;  // 0 the clip's, 1 transparent, 2 a colour, 3 a picture
uniform vec3 color;
out vec4 result;
void main() {
  vec2 at = vec2(gl_FragCoord.x, size - gl_FragCoord.y);               // px, down from the top
  vec2 grid = ((at - 0.5) * (side - 1.0) / (size - 1.0) + 0.5) / side; // corners of field and image coincide
  vec4 bend = texture(first, grid), tint = texture(second, grid);
  vec2 from = at / size + 0.5 * bend.xy;
  vec3 cloth = clamp(texture(torso, from).rgb + vec3(bend.zw, tint.x), 0.0, 1.0);
  vec2 shape = texture(opacity, from).rg;
  float solid = clamp(shape.x * (1.0 + tint.y), 0.0, 1.0);
  vec3 behind = texture(plate, at / size).rgb;
  vec4 head = texture(splats, at / size);
  if (background == 0) {
    result = vec4(clamp(head.rgb + (1.0 - head.a) * mix(behind, cloth, solid), 0.0, 1.0), 1.0);
    return;
  }
  // without the plate the torso is opaque inside its outline, with the colours that it has over the plate
  float filled = max(solid, shape.y);
  cloth = clamp((solid * cloth + (filled - solid) * behind) / max(filled, 1e-6), 0.0, 1.0);
  if (background == 1) {
    float alpha = clamp(head.a + (1.0 - head.a) * filled, 0.0, 1.0);
    result = vec4(clamp(head.rgb + (1.0 - head.a) * cloth * filled, 0.0, alpha), alpha);
    return;
  }
  vec3 chosen = background == 2 ? color : texture(own, at / size).rgb;
  result = vec4(clamp(head.rgb + (1.0 - head.a) * mix(chosen, cloth, filled), 0.0, 1.0), 1.0);
}`;
const TEXTURES = ["splats", "plate", "torso", "opacity", "first", "second", "own"] as const;

export class Compositor {
  private readonly gl: WebGL2RenderingContext;
  private readonly splatting: WebGLProgram;
  private readonly composing: WebGLProgram;
  private readonly textures: Record<(typeof TEXTURES)[number], WebGLTexture>;
  private readonly target: WebGLFramebuffer;
  private readonly instances: WebGLBuffer;
  private readonly shape: { splats: WebGLVertexArrayObject; image: WebGLVertexArrayObject };
  private background: Background = "clip";

  /** Call `load` before `draw`. */
  constructor(readonly canvas: HTMLCanvasElement, private readonly size: number, private readonly side: number) {
    canvas.width = canvas.height = size;
    // kept: photographs of the canvas and recordings are taken after it was shown
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser shows no WebGL2, which the page draws with. Use a current Chrome, Edge, "
      + "Firefox or Safari, and turn hardware acceleration on.");
    this.gl = gl;
    const halves = gl.getExtension("EXT_color_buffer_float") ?? gl.getExtension("EXT_color_buffer_half_float");
    this.splatting = program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
    this.composing = program(gl, COMPOSE_VERTEX, COMPOSE_FRAGMENT);
    this.textures = Object.fromEntries(TEXTURES.map((name) => [name, texture(gl, name === "splats" ? gl.NEAREST
      : gl.LINEAR)])) as typeof this.textures;
    gl.bindTexture(gl.TEXTURE_2D, this.textures.splats);
    gl.texStorage2D(gl.TEXTURE_2D, 1, halves ? gl.RGBA16F : gl.RGBA8, size, size);
    this.target = gl.createFramebuffer()!;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.textures.splats, 0);
    this.instances = gl.createBuffer()!;
    this.shape = this.arrays();
    this.picture(this.textures.own, null);
  }

  /** The images of the head. */
  async load(head: Head): Promise<void> {
    for (const name of ["plate", "torso", "opacity"] as const) {
      const file = new Blob([head.get(`image.${name}`).data as Uint8Array<ArrayBuffer>], { type: "image/webp" });
      this.picture(this.textures[name], await createImageBitmap(file, { colorSpaceConversion: "none",
                                                                       premultiplyAlpha: "none" }));
    }
  }

  setBackground(background: Background): void {
    this.background = background;
    if (typeof background === "object" && "picture" in background)
      this.picture(this.textures.own, background.picture);
  }

  /** Draw a frame: see `Projection.splats` and `TorsoField.at`. */
  draw(splats: Float32Array, fields: [Float32Array, Float32Array]): void {
    const { gl, size } = this;
    gl.viewport(0, 0, size, size);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE_MINUS_DST_ALPHA, gl.ONE);  // from the nearest to the farthest
    gl.useProgram(this.splatting);
    gl.uniform1f(gl.getUniformLocation(this.splatting, "size"), size);
    gl.bindVertexArray(this.shape.splats);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.instances);
    gl.bufferData(gl.ARRAY_BUFFER, splats, gl.STREAM_DRAW);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, splats.length / SPLAT_FLOATS);
    gl.disable(gl.BLEND);
    (["first", "second"] as const).forEach((name, i) => {
      gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, this.side, this.side, 0, gl.RGBA, gl.FLOAT, fields[i]);
    });
    this.compose();
  }

  private compose(): void {
    const { gl, composing, background } = this;
    const uniform = (name: string) => gl.getUniformLocation(composing, name);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(composing);
    TEXTURES.forEach((name, i) => {
      gl.activeTexture(gl.TEXTURE0 + i);
      gl.bindTexture(gl.TEXTURE_2D, this.textures[name]);
      gl.uniform1i(uniform(name), i);
    });
    gl.activeTexture(gl.TEXTURE0);
    gl.uniform1f(uniform("size"), this.size);
    gl.uniform1f(uniform("side"), this.side);
    const colored = typeof background === "object" && "color" in background;
    gl.uniform1i(uniform("background"), background === "clip" ? 0 : background === "transparent" ? 1 : colored ? 2 : 3);
    if (colored) gl.uniform3fv(uniform("color"), background.color);
    gl.bindVertexArray(this.shape.image);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.bindVertexArray(null);
  }

  private picture(to: WebGLTexture, image: ImageBitmap | null): void {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, to);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    if (image) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  /** A square of corners -1...1, alone, and with the floats of a splat for each instance. */
  private arrays(): typeof this.shape {
    const { gl } = this, square = gl.createBuffer()!;
    gl.bindBuffer(gl.ARRAY_BUFFER, square);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    const made = { splats: gl.createVertexArray()!, image: gl.createVertexArray()! };
    for (const array of [made.image, made.splats]) {
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, square);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.instances);
    for (const [place, floats, offset] of [[1, 4, 0], [2, 4, 4], [3, 3, 8]]) {
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, floats, gl.FLOAT, false, 4 * SPLAT_FLOATS, 4 * offset);
      gl.vertexAttribDivisor(place, 1);
    }
    gl.bindVertexArray(null);
    return made;
  }
}
