// The worker that finds QR symbols in pictures, with zxing-cpp compiled to WebAssembly.
//
// It is handed the packed module once, and then pictures one at a time. Camera frames get one quick
// try, for the next frame is soon there; a picture from a file gets every try that qr.py gives it.

import { prepareZXingModule, readBarcodes } from "zxing-wasm/reader";
import { fromBase64, latin1 } from "./core/bytes.js";
import { unzlib } from "./core/zlib.js";

const MAX_MODULE_BYTES = 8 << 20;
const MAX_ENLARGED_PIXELS = 4_000_000;
const LOCAL = { formats: ["QRCode"], tryHarder: true, maxNumberOfSymbols: 8, binarizer: "LocalAverage" };
const GLOBAL = { ...LOCAL, binarizer: "GlobalHistogram" };
const QUICK = { ...LOCAL, tryDownscale: true, tryInvert: false };

const ATTEMPTS = [
  (picture) => read(picture, LOCAL),
  (picture) => read(redrawn(picture, 2), LOCAL),
  (picture) => read(picture, GLOBAL),
  (picture) => read(redrawn(picture, 2, "contrast(1.8)"), LOCAL),
  (picture) => read(redrawn(picture, 1, "blur(0.6px)"), LOCAL),
];

self.onmessage = async ({ data: { id, module, picture, thorough } }) => {
  try {
    if (module !== undefined) {
      const wasmBinary = unzlib(fromBase64(module), MAX_MODULE_BYTES).buffer;
      await prepareZXingModule({ overrides: { wasmBinary }, fireImmediately: true });
      self.postMessage({ id, ready: true });
      return;
    }
    const begun = performance.now();
    let texts = [];
    for (const attempt of thorough ? ATTEMPTS : [(frame) => read(frame, QUICK)]) {
      texts = await attempt(picture);
      if (texts.length) break;
    }
    self.postMessage({ id, texts, ms: performance.now() - begun });
  } catch (error) {
    self.postMessage({ id, failed: error?.name ?? "Error" });
  }
};

async function read(picture, options) {
  if (picture === null) return [];
  const found = await readBarcodes(picture, options);
  // latin-1 keeps every byte; what is not base45 is refused later, with a reason.
  return found.filter((symbol) => symbol.isValid).map((symbol) => latin1(symbol.bytes));
}

/** `picture` at `scale` times its size, through a canvas filter; null if that is too large. */
function redrawn(picture, scale, filter = "none") {
  const [width, height] = [picture.width * scale, picture.height * scale];
  if (typeof OffscreenCanvas === "undefined" || width * height > scale * scale * MAX_ENLARGED_PIXELS) {
    return null;
  }
  const source = new OffscreenCanvas(picture.width, picture.height);
  source.getContext("2d").putImageData(picture, 0, 0);
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.filter = filter;
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
