/** The head inside the page: a gzipped safetensors file in base64, written by `egs.export_web`. */

/** A tensor; integers are as stored, halves are floats. */
export interface Tensor {
  shape: number[];
  data: Float32Array | Uint8Array | Int8Array | Int16Array;
}

/** Facts about the head: what the metadata of the file hold. */
export type Facts = Record<string, unknown>;

/** Tensors by name, and facts. */
export class Head {
  constructor(readonly tensors: Map<string, Tensor>, readonly facts: Facts) {}

  /** A float tensor's values. */
  floats(name: string): Float32Array {
    const found = this.get(name);
    if (!(found.data instanceof Float32Array)) throw new Error(`${name} is not a float tensor`);
    return found.data;
  }

  /** The tensors whose names begin with one of these, for a worker that needs no others. */
  part(...beginnings: string[]): Map<string, Tensor> {
    return new Map([...this.tensors].filter(([name]) => beginnings.some((start) => name.startsWith(start))));
  }

  get(name: string): Tensor {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`The head has no tensor ${name}`);
    return found;
  }
}

/** Decode what `egs.export_web` wrote into the page. */
export async function unpack(base64: string): Promise<Head> {
  const packed = Uint8Array.from(atob(base64.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return parse(await new Response(stream).arrayBuffer());
}

/** Parse a safetensors file: 8 bytes length of the header, the header as JSON, the values. */
export function parse(buffer: ArrayBuffer): Head {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const facts: Facts = JSON.parse(header.__metadata__?.facts ?? "{}");
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries<any>(header)) {
    if (name === "__metadata__") continue;
    const [first, last] = entry.data_offsets;
    const bytes = buffer.slice(8 + length + first, 8 + length + last);  // a copy: aligned, whatever its offset
    tensors.set(name, { shape: entry.shape, data: decode(entry.dtype, bytes) });
  }
  return new Head(tensors, facts);
}

function decode(dtype: string, bytes: ArrayBuffer): Tensor["data"] {
  switch (dtype) {
    case "F32": return new Float32Array(bytes);
    case "F16": return halves(new Uint16Array(bytes));
    case "U8": return new Uint8Array(bytes);
    case "I8": return new Int8Array(bytes);
    case "I16": return new Int16Array(bytes);
    default: throw new Error(`Unknown type ${dtype}`);
  }
}

/** IEEE half precision -> single precision. */
function halves(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1, exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023;
    out[i] = exponent === 0 ? sign * fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : sign * Infinity)
        : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}
