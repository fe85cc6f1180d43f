// Pictures -> texts of the symbols in them, through the worker in reader.js.

const MAX_PIXELS = 40_000_000; // a 600 dpi scan of an A4 page is 35 megapixels
export const MAX_FILE_BYTES = 24 << 20;

export class NoReaderError extends Error {}

export class Reader {
  #worker = null;
  #next = 0;
  #waiting = new Map();
  #ready = null;

  /** Start the worker; a later call waits for the first. Rejects with `NoReaderError`. */
  start() {
    this.#ready ??= this.#start();
    return this.#ready;
  }

  async #start() {
    const source = document.getElementById("reader").textContent;
    try {
      this.#worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    } catch {
      throw new NoReaderError();
    }
    this.#worker.onmessage = ({ data }) => this.#settle(data);
    this.#worker.onerror = () => {
      for (const id of [...this.#waiting.keys()]) this.#settle({ id, failed: "Error" });
    };
    await this.#ask({ module: document.getElementById("wasm").textContent }, []);
  }

  #settle({ id, failed, ...answer }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (failed === undefined) waiting?.resolve(answer);
    else waiting?.reject(new NoReaderError(failed));
  }

  #ask(message, transfer) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...message }, transfer);
    });
  }

  /** `{texts, ms}` of an ImageData, which is handed over and not usable afterwards. */
  async read(picture, thorough) {
    await this.start();
    return this.#ask({ picture, thorough }, [picture.data.buffer]);
  }
}

/** The pixels of a picture file, made smaller if they are too many. Rejects if it is no picture. */
export async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // Transparent parts of a picture are paper.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
