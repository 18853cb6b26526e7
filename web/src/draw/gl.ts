/** Small helpers around WebGL2. */

export function program(gl: WebGL2RenderingContext, vertex: string, fragment: string): WebGLProgram {
  const made = gl.createProgram()!;
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]] as const) {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;\nprecision highp sampler2D;\nprecision highp usampler2D;\n${source}`);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(made)!.map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`The browser refused a shader: ${[gl.getProgramInfoLog(made), ...logs].join(" ")}`);
  }
  return made;
}

/** A texture that is read between its texels and beyond its edges repeats them. */
export function texture(gl: WebGL2RenderingContext, filter: number = gl.LINEAR): WebGLTexture {
  const made = gl.createTexture()!;
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return made;
}

/** A texture of numbers that are read one by one, by their place in a row of `WIDTH` texels. */
export class Numbers {
  private readonly texture: WebGLTexture;
  private rows = 0;

  constructor(private readonly gl: WebGL2RenderingContext, private readonly floats: boolean) {
    this.texture = texture(gl, gl.NEAREST);
  }

  bind(unit: number): void {
    this.gl.activeTexture(this.gl.TEXTURE0 + unit);
    this.gl.bindTexture(this.gl.TEXTURE_2D, this.texture);
  }

  /** Upload; floats are four to a texel, integers one. */
  fill(values: Float32Array | Uint32Array): void {
    const { gl, floats } = this, rows = Math.max(1, Math.ceil(values.length / (WIDTH * (floats ? 4 : 1))));
    const padded = floats ? new Float32Array(4 * WIDTH * rows) : new Uint32Array(WIDTH * rows);
    padded.set(values);
    this.bind(0);
    const [inside, format, type] = floats ? [gl.RGBA32F, gl.RGBA, gl.FLOAT]
      : [gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT];
    if (rows > this.rows) gl.texImage2D(gl.TEXTURE_2D, 0, inside, WIDTH, this.rows = rows, 0, format, type, padded);
    else gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, rows, format, type, padded);
  }
}

/** Texels of a row of `Numbers`. */
export const WIDTH = 1024;
