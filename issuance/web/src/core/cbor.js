// CBOR (RFC 8949), the part that permits use, read strictly; the rules are those of cbor.py.
//
// Integers become numbers, or BigInt beyond 2**53; maps become Map. A byte string as map key becomes
// the symbol `Symbol.for("h'..'")`, so that equal keys are equal and none meets a text.

import { hexOf, joined, textOf, utf8 } from "./bytes.js";

export const MAX_DEPTH = 16;

export class CborError extends Error {}
export class DuplicateKeyError extends CborError {}

/** A tagged item, uninterpreted. */
export class Tagged {
  constructor(tag, value) {
    this.tag = tag;
    this.value = value;
  }
}

/** A floating-point number; kept apart because 1.0 is not 1 to a reader of claims. */
export class Float {
  constructor(value) {
    this.value = value;
  }
}

/** `value` as an integer if it is one to Python, where booleans are; otherwise undefined. */
export function asInteger(value) {
  if (typeof value === "boolean") return Number(value);
  return typeof value === "number" || typeof value === "bigint" ? value : undefined;
}

/** The one item that `data` holds. Throws `CborError`. */
export function decode(data) {
  const reader = new Reader(data);
  const value = reader.item(0);
  if (reader.at !== data.length) throw new CborError("bytes after the item");
  return value;
}

class Reader {
  constructor(data) {
    this.data = data;
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.at = 0;
  }

  get left() {
    return this.data.length - this.at;
  }

  item(depth) {
    if (depth > MAX_DEPTH) throw new CborError("nested too deep");
    if (this.left < 1) throw new CborError("ends inside an item");
    const head = this.data[this.at++];
    const major = head >> 5;
    if (major === 7) return this.simple(head & 31);
    const argument = this.argument(head & 31);
    switch (major) {
      case 0:
        return argument;
      case 1:
        return typeof argument === "bigint" || argument === Number.MAX_SAFE_INTEGER
          ? -1n - BigInt(argument)
          : -1 - argument;
      case 2:
        return this.take(argument);
      case 3:
        return text(this.take(argument));
      case 4:
        return this.array(argument, depth);
      case 5:
        return this.map(argument, depth);
      default:
        return new Tagged(argument, this.item(depth + 1));
    }
  }

  argument(info) {
    if (info < 24) return info;
    if (info > 27) throw new CborError("indefinite length or reserved value");
    const size = 1 << (info - 24);
    if (size > this.left) throw new CborError("ends inside a number");
    const at = this.at;
    this.at += size;
    if (size === 1) return this.view.getUint8(at);
    if (size === 2) return this.view.getUint16(at);
    if (size === 4) return this.view.getUint32(at);
    const large = this.view.getBigUint64(at);
    return large <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(large) : large;
  }

  take(length) {
    if (length > this.left) throw new CborError("string longer than the data");
    const from = this.at;
    this.at += Number(length);
    return this.data.slice(from, this.at);
  }

  array(count, depth) {
    // Every element takes at least a byte, so a false count cannot reserve memory.
    if (count > this.left) throw new CborError("array longer than the data");
    const items = [];
    for (let n = 0; n < count; n += 1) items.push(this.item(depth + 1));
    return items;
  }

  map(count, depth) {
    if (count > Math.floor(this.left / 2)) throw new CborError("map longer than the data");
    const items = new Map();
    for (let n = 0; n < count; n += 1) {
      const key = keyOf(this.item(depth + 1));
      if (items.has(key)) throw new DuplicateKeyError("map names a key twice");
      items.set(key, this.item(depth + 1));
    }
    return items;
  }

  simple(info) {
    if (info === 20) return false;
    if (info === 21) return true;
    if (info === 22) return null;
    if (info < 25 || info > 27) throw new CborError("simple value without a meaning here");
    const size = 1 << (info - 24);
    if (size > this.left) throw new CborError("ends inside a number");
    const at = this.at;
    this.at += size;
    if (size === 8) return new Float(this.view.getFloat64(at));
    return new Float(size === 4 ? this.view.getFloat32(at) : half(this.view.getUint16(at)));
  }
}

function keyOf(value) {
  if (value instanceof Uint8Array) return Symbol.for(`h'${hexOf(value)}'`);
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "string") return value;
  throw new CborError("map key is not an integer or string");
}

function text(bytes) {
  try {
    return textOf(bytes);
  } catch {
    throw new CborError("text is not UTF-8");
  }
}

/** IEEE 754 binary16, RFC 8949 appendix D. */
function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size =
    exponent === 31
      ? fraction
        ? Number.NaN
        : Number.POSITIVE_INFINITY
      : exponent
        ? (1 + fraction / 1024) * 2 ** (exponent - 15)
        : (fraction / 1024) * 2 ** -14;
  return bits & 0x8000 ? -size : size;
}

/** Deterministic encoding (section 4.2.1) of texts, byte strings and arrays: all that is signed. */
export function encode(value) {
  if (typeof value === "string") {
    const bytes = utf8(value);
    return joined([head(3, bytes.length), bytes]);
  }
  if (value instanceof Uint8Array) return joined([head(2, value.length), value]);
  if (Array.isArray(value)) return joined([head(4, value.length), ...value.map(encode)]);
  throw new TypeError("cannot encode this");
}

function head(major, argument) {
  const top = major << 5;
  if (argument < 24) return Uint8Array.of(top | argument);
  if (argument < 0x100) return Uint8Array.of(top | 24, argument);
  if (argument < 0x10000) return Uint8Array.of(top | 25, argument >> 8, argument & 255);
  const bytes = new Uint8Array(5);
  bytes[0] = top | 26;
  new DataView(bytes.buffer).setUint32(1, argument);
  return bytes;
}
