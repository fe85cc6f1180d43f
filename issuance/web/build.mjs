// Builds dist/verify.html and dist/sw.js, the same bytes every time: `npm ci && npm run build`.
//
// The WebAssembly module is packed with a deflater in JavaScript of a fixed version, because the one
// in Node changes its output with Node's zlib.

import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { build, transform } from "esbuild";
import { deflate } from "pako";

const here = new URL("./", import.meta.url);
const out = process.argv[2] ? new URL(`file://${process.argv[2]}/`) : new URL("dist/", here);
const source = (name) => readFile(new URL(`src/${name}`, here), "utf8");
const installed = (name) => new URL(`node_modules/${name}`, here);

const TARGET = ["chrome94", "firefox93", "safari15.4"];

async function bundled(name, format) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`src/${name}`, here).pathname],
    bundle: true,
    write: false,
    minify: true,
    format,
    target: TARGET,
    charset: "utf8",
    legalComments: "none",
  });
  return (
    outputFiles[0].text
      .trim()
      // Where zxing-wasm would look for its module on the network, if it were not handed it.
      .replace(/https:\/\/[a-z.]+\/npm\/zxing-wasm/, "about:invalid")
      // Inside a script element nothing may look like its end (HTML section 4.12.1.3).
      .replaceAll("</script", "<\\/script")
      .replaceAll("<!--", "<\\!--")
  );
}

const sha256 = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** The waves of the permit card's ground, card_layout.py. */
function waves() {
  const paths = [];
  for (let line = 0; line < 16; line += 1) {
    let path = "";
    for (let step = 0; step <= 60; step += 1) {
      const t = (step / 60) * Math.PI;
      const y = 140 + 28 * line + 16 * Math.sin(t * 4 + line * 0.55) + 7 * Math.sin(t * 10 - line * 0.3);
      path += `${step ? "L" : "M"}${((856 * step) / 60).toFixed(1)} ${(y - 60).toFixed(1)}`;
    }
    paths.push(`<path d="${path}"/>`);
  }
  return paths.join("");
}

async function licences() {
  const read = (url) => readFile(url, "utf8");
  const parts = [
    ["zxing-wasm", await read(installed("zxing-wasm/LICENSE"))],
    ["@noble/curves", await read(installed("@noble/curves/LICENSE"))],
    ["@noble/hashes", await read(installed("@noble/hashes/LICENSE"))],
    ["anju, and zxing-cpp inside zxing-wasm (Apache License 2.0)", await read(new URL("../../LICENSE", here))],
  ];
  return parts.map(([name, text]) => `${name}\n\n${text.trim()}\n`).join("\n----\n\n");
}

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-20 -20 140 140"><rect x="-20" y="-20" width="140" height="140" rx="30" fill="#0d5257"/><path fill="#fff" d="M0 50 50 0l50 50-14 12-36-36-36 36zM26 64h48q6 0 6 6v24q0 6-6 6H59V74H41v26H26q-6 0-6-6V70q0-6 6-6z"/></svg>`;

const app = await bundled("app.js", "esm");
const style = (await transform(await source("page.css"), { loader: "css", minify: true, target: TARGET })).code.trim();
const wasm = await readFile(installed("zxing-wasm/dist/reader/zxing_reader.wasm"));
const parts = {
  // Nothing is fetched but trust data from the page's own server; the worker is a blob of this file.
  csp: [
    "default-src 'none'",
    `script-src ${sha256(app)} 'wasm-unsafe-eval'`,
    `style-src ${sha256(style)}`,
    "img-src data: blob:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; "),
  icon: `data:image/svg+xml,${encodeURIComponent(ICON)}`,
  style,
  waves: waves(),
  licences: (await licences()).replaceAll("</script", ""),
  reader: await bundled("reader.js", "iife"),
  wasm: Buffer.from(deflate(wasm, { level: 9 })).toString("base64"),
  app,
};
const page = (await source("page.html")).replace(/\{\{(\w+)\}\}/g, (_, name) => parts[name]);
const worker = (await bundled("sw.js", "iife")).replace("BUILD", JSON.stringify(sha256(page).slice(8, 24)));

await mkdir(out, { recursive: true });
await writeFile(new URL("verify.html", out), page);
await writeFile(new URL("sw.js", out), `${worker}\n`);
console.log(`verify.html ${Buffer.byteLength(page)} bytes, sw.js ${worker.length} bytes`);
