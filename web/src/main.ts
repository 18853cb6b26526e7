import { unpack } from "./container";

const packed = document.getElementById("head")?.textContent ?? "";
if (packed.trim()) void unpack(packed);
