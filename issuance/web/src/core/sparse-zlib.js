// Mostly-zero bytes -> the one zlib stream that sparse_zlib.py writes for them, byte for byte.
//
// One block with dynamic Huffman codes (RFC 1951 section 3.2.7), zeros as matches at distance 1,
// codes by package-merge with ties in symbol order.

import { LENGTH_BASE, LENGTH_EXTRA, ORDER, adler32 } from "./zlib.js";

const END_OF_BLOCK = 256;
const MAX_MATCH = 258;
const MIN_MATCH = 3;

/** Length symbol and extra bits of a match; 258 has a symbol of its own. */
function lengthSymbol(length) {
  let at = LENGTH_BASE.length - 1;
  if (length !== MAX_MATCH) {
    at -= 1;
    while (LENGTH_BASE[at] > length) at -= 1;
  }
  return { symbol: 257 + at, extra: number(length - LENGTH_BASE[at], LENGTH_EXTRA[at]) };
}

/** A number in stream order: least significant bit first. */
function number(value, bits) {
  let text = "";
  for (let bit = 0; bit < bits; bit += 1) text += (value >> bit) & 1;
  return text;
}

export function compress(data) {
  const tokens = tokensOf(data);
  const counts = new Map();
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  const symbolOf = new Map(
    [...counts.keys()].map((t) => [t, t <= END_OF_BLOCK ? { symbol: t } : lengthSymbol(t - 257)]),
  );
  const weights = new Map();
  for (const [token, count] of counts) {
    const { symbol } = symbolOf.get(token);
    weights.set(symbol, (weights.get(symbol) ?? 0) + count);
  }
  const lengths = codeLengths(weights, 15);
  const codes = codesOf(lengths);
  // A match is followed by its extra bits and by the only distance code there is, one bit.
  const written = new Map();
  for (const [token, { symbol, extra }] of symbolOf) {
    written.set(token, codes.get(symbol) + (extra === undefined ? "" : `${extra}0`));
  }
  const bits = new BitWriter();
  bits.write(blockHead(lengths));
  for (const token of tokens) bits.write(written.get(token));
  const body = bits.bytes();
  const out = new Uint8Array(body.length + 6);
  out.set([0x78, 0xda]);
  out.set(body, 2);
  new DataView(out.buffer).setUint32(body.length + 2, adler32(data));
  return out;
}

class BitWriter {
  #bytes = [];
  #hold = 0;
  #count = 0;

  write(text) {
    for (let at = 0; at < text.length; at += 1) {
      this.#hold |= (text.charCodeAt(at) & 1) << this.#count;
      this.#count += 1;
      if (this.#count === 8) {
        this.#bytes.push(this.#hold);
        this.#hold = 0;
        this.#count = 0;
      }
    }
  }

  bytes() {
    return Uint8Array.from(this.#count ? [...this.#bytes, this.#hold] : this.#bytes);
  }
}

/** Literals as themselves, a match of length n as 257 + n, and the end of the block. */
function tokensOf(data) {
  const tokens = [];
  let zeros = 0;
  const flush = () => {
    if (!zeros) return;
    tokens.push(0);
    let left = zeros - 1;
    for (; left >= MAX_MATCH; left -= MAX_MATCH) tokens.push(257 + MAX_MATCH);
    if (left >= MIN_MATCH) tokens.push(257 + left);
    else for (; left > 0; left -= 1) tokens.push(0);
    zeros = 0;
  };
  for (const byte of data) {
    if (byte === 0) {
      zeros += 1;
    } else {
      flush();
      tokens.push(byte);
    }
  }
  flush();
  tokens.push(END_OF_BLOCK);
  return tokens;
}

/** Symbol -> length of its code, at most `limit`; package-merge, ties by the symbols' order. */
function codeLengths(weights, limit) {
  const singles = [...weights].map(([symbol, count]) => ({ count, symbols: [symbol] })).sort(byWeight);
  if (singles.length === 1) return new Map([[singles[0].symbols[0], 1]]);
  let packages = [];
  for (let round = 0; round < limit; round += 1) {
    const merged = [...singles, ...packages].sort(byWeight);
    packages = [];
    for (let at = 0; at + 1 < merged.length; at += 2) {
      const [left, right] = [merged[at], merged[at + 1]];
      packages.push({ count: left.count + right.count, symbols: [...left.symbols, ...right.symbols] });
    }
  }
  const lengths = new Map();
  for (const { symbols } of packages.slice(0, singles.length - 1)) {
    for (const symbol of symbols) lengths.set(symbol, (lengths.get(symbol) ?? 0) + 1);
  }
  return lengths;
}

function byWeight(left, right) {
  if (left.count !== right.count) return left.count - right.count;
  const [a, b] = [left.symbols, right.symbols];
  for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
    if (a[at] !== b[at]) return a[at] - b[at];
  }
  return a.length - b.length;
}

/** Canonical Huffman codes (RFC 1951 section 3.2.2), as text in stream order. */
function codesOf(lengths) {
  const codes = new Map();
  let code = 0;
  let last = 0;
  const ordered = [...lengths].sort(([s, l], [t, m]) => l - m || s - t);
  for (const [symbol, length] of ordered) {
    code <<= length - last;
    codes.set(symbol, code.toString(2).padStart(length, "0"));
    code += 1;
    last = length;
  }
  return codes;
}

/** The final block's header with both code tables; the distance table holds distance 1 only. */
function blockHead(lengths) {
  const literals = Array.from({ length: Math.max(...lengths.keys()) + 1 }, (_, s) => lengths.get(s) ?? 0);
  const table = [...literals, 1];
  const counts = new Map();
  for (const length of table) counts.set(length, (counts.get(length) ?? 0) + 1);
  const tableLengths = codeLengths(counts, 7);
  const tableCodes = codesOf(tableLengths);
  const used = ORDER.reduce((most, symbol, at) => (tableLengths.has(symbol) ? at + 1 : most), 4);
  return [
    "1", // the last block
    number(2, 2), // with dynamic codes
    number(literals.length - 257, 5),
    number(0, 5),
    number(used - 4, 4),
    ...ORDER.slice(0, used).map((symbol) => number(tableLengths.get(symbol) ?? 0, 3)),
    ...table.map((length) => tableCodes.get(length)),
  ].join("");
}
