/** Says in the metadata of a recording that it is synthetic, as `media/synthetic.py` does; browsers write none. */

export const COMMENT = "Synthetic: rendered by a trained talking-head model (egstalker_nb), not a recording.";
/** With IPTC's digital source type. */
const XMP = `<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmp:CreatorTool="egstalker_nb"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">${COMMENT}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>`;
const XMP_BOX = [0xbe, 0x7a, 0xcf, 0xcb, 0x97, 0xa9, 0x42, 0xe8, 0x9c, 0x71, 0x99, 0x94, 0x91, 0xe3, 0xaf, 0xac];
const HEADER = 65_536;         // bytes in which the first frames of a WebM begin
// elements of a WebM
const SEGMENT = 0x18538067, CLUSTER = 0x1f43b675, TAGS = 0x1254c367, TAG = 0x7373, TARGETS = 0x63c0;
const SIMPLE_TAG = 0x67c8, TAG_NAME = 0x45a3, TAG_STRING = 0x4487;
const UNKNOWN = 2 ** 56 - 1;   // size of a segment that was written as it came

/** The recording with the mark: an XMP box behind an MP4, a comment in a WebM. */
export async function marked(recording: Blob): Promise<Blob> {
  const { type } = recording, text = new TextEncoder();
  if (type === "video/mp4") {
    const xmp = text.encode(XMP), box = new DataView(new ArrayBuffer(8));
    box.setUint32(0, 24 + xmp.length);
    box.setUint32(4, 0x75756964);  // uuid
    return new Blob([recording, box.buffer, new Uint8Array(XMP_BOX), xmp], { type });
  }
  const at = firstCluster(new DataView(await recording.slice(0, HEADER).arrayBuffer()));
  if (at === undefined) return recording;
  const comment = element(SIMPLE_TAG, element(TAG_NAME, text.encode("COMMENT")),
                          element(TAG_STRING, text.encode(COMMENT)));
  const tags = element(TAGS, element(TAG, element(TARGETS), comment));
  return new Blob([recording.slice(0, at), tags, recording.slice(at)], { type });
}

/** Where the first frames of a WebM begin, if its segment has no size that would have to change. */
function firstCluster(view: DataView): number | undefined {
  for (let at = 0; at + 12 <= view.byteLength;) {
    const id = number(view, at, true), size = number(view, at + id.length, false);
    if (id.value === CLUSTER) return at;
    if (id.value === SEGMENT && size.value !== UNKNOWN) return undefined;
    at += id.length + size.length + (id.value === SEGMENT ? 0 : size.value);
  }
  return undefined;
}

/** A number of EBML, whose first byte says by its leading zeros how long it is; an id keeps that bit. */
function number(view: DataView, at: number, keep: boolean): { value: number; length: number } {
  const first = view.getUint8(at), length = Math.clz32(first) - 23;
  let value = keep ? first : first & (0xff >> length);
  for (let i = 1; i < length; i++) value = value * 256 + view.getUint8(at + i);
  return { value, length };
}

function element(id: number, ...parts: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const size = parts.reduce((sum, part) => sum + part.length, 0), bytes: number[] = [];
  for (let left = id; left; left = Math.floor(left / 256)) bytes.unshift(left % 256);
  for (const shift of [24, 16, 8, 0]) bytes.push((0x10000000 + size) / 2 ** shift & 0xff);
  const out = new Uint8Array(bytes.length + size);
  out.set(bytes);
  parts.reduce((at, part) => (out.set(part, at), at + part.length), bytes.length);
  return out;
}
