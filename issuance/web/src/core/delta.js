// A day's changes to a trust bundle -> the new bundle; see delta.py.
//
// A delta needs no trust: what it leads to is a complete bundle, verified like any other.

import * as bundle from "./bundle.js";
import { equal, joined, textOf } from "./bytes.js";
import { asInteger, decode } from "./cbor.js";
import { sha256 } from "./crypto.js";
import { compress } from "./sparse-zlib.js";
import { MAX_LIST_BYTES, StatusList, statusesOf } from "./status-list.js";
import { TrustError } from "./types.js";
import { unzlib } from "./zlib.js";

const FORMAT = 1;
const MAX_DELTA_BYTES = 1 << 20;
const MAX_PLAIN_BYTES = 4 << 20;
const MAX_NEW_LIST_BYTES = 64 << 20;
const BITS = 2;
const LIST_PATH = /^targets\/status\/[0-9a-f]{64}\.([1-9][0-9]{0,8})$/;

const notADelta = () => new TrustError("NOT_A_DELTA", "the file is not a delta of a trust bundle");
const unfit = () => new TrustError("DELTA_UNFIT", "the delta was made for another bundle than the one here");

/** Whether `data` begins like a delta rather than like a bundle (a zip archive). */
export const isDelta = (data) => data[0] === 0x78 && data[1] === 0xda;

/**
 * The bundle that `delta` leads to from `old`, which this device has verified before.
 *
 * The result is not verified. Throws `TrustError`: NOT_A_DELTA or DELTA_UNFIT.
 */
export async function apply(old, delta) {
  const document = readDelta(delta);
  const files = bundle.unpack(old);
  const have = versionOf(files);
  const version = document.get("version");
  if (have === version) return old;
  if (have < document.get("since") || have > version) throw unfit();
  let packed;
  try {
    packed = bundle.pack(patched(files, document));
  } catch {
    throw unfit();
  }
  if (!equal(await sha256(packed), document.get("sha256"))) throw unfit();
  return packed;
}

function patched(files, document) {
  const made = new Map();
  for (const name of document.get("keep")) {
    if (!files.has(name)) throw unfit();
    made.set(name, files.get(name));
  }
  for (const [name, data] of document.get("files")) made.set(name, data);
  const tokens = new Map();
  for (const [name, data] of files) {
    const match = LIST_PATH.exec(name);
    if (match) tokens.set(Number(match[1]), data);
  }
  let allowance = MAX_NEW_LIST_BYTES;
  for (const [name, number, head, tail, size, changed] of document.get("lists")) {
    const token = tokens.get(Number(number));
    const entries = token ? statusesOf(token) : empty(size, allowance);
    if (!token) allowance -= size;
    made.set(name, joined([head, compress(changedData(entries, changed)), tail]));
  }
  return made;
}

function readDelta(data) {
  let document;
  try {
    if (data.length > MAX_DELTA_BYTES) throw notADelta();
    document = decode(unzlib(data, MAX_PLAIN_BYTES));
  } catch {
    throw notADelta();
  }
  const is = (key, sound) => document.has(key) && sound(document.get(key));
  const integer = (value) => asInteger(value) !== undefined;
  const bytes = (value) => value instanceof Uint8Array;
  const text = (value) => typeof value === "string";
  const sound =
    document instanceof Map &&
    is("format", (value) => value === FORMAT) &&
    is("since", integer) &&
    is("version", integer) &&
    is("sha256", bytes) &&
    is("keep", (value) => Array.isArray(value) && value.every(text)) &&
    is("files", (value) => value instanceof Map && [...value].every(([k, v]) => text(k) && bytes(v))) &&
    is("lists", (value) => Array.isArray(value) && value.every(isChange));
  if (!sound) throw notADelta();
  return document;

  function isChange(entry) {
    const kinds = [text, integer, bytes, bytes, integer, bytes];
    return Array.isArray(entry) && entry.length === 6 && kinds.every((kind, n) => kind(entry[n]));
  }
}

/** The data of `entries` with the changes made: distance from the last, and value, as one varint. */
function changedData(entries, changed) {
  const data = entries.data.slice();
  const values = 1 << entries.bits;
  let index = -1;
  for (const number of varints(changed)) {
    index += Math.floor(number / values) + 1;
    if (index >= entries.length) throw unfit();
    const bit = index * entries.bits;
    const shift = bit & 7;
    data[bit >> 3] = (data[bit >> 3] & ~((values - 1) << shift)) | (number % values << shift);
  }
  return data;
}

function* varints(data) {
  let number = 0;
  let factor = 1;
  for (const byte of data) {
    number += (byte & 0x7f) * factor;
    factor *= 128;
    if (factor > 2 ** 35) throw unfit();
    if (byte < 0x80) {
      yield number;
      number = 0;
      factor = 1;
    }
  }
  if (factor !== 1) throw unfit();
}

function empty(size, allowance) {
  if (!(size > 0 && size <= Math.min(MAX_LIST_BYTES, allowance))) throw unfit();
  return new StatusList(BITS, new Uint8Array(Number(size)));
}

function versionOf(files) {
  try {
    const { version } = JSON.parse(textOf(files.get("metadata/timestamp.json"))).signed;
    if (Number.isSafeInteger(version)) return version;
  } catch {
    // Falls through: whatever was wrong, it is no bundle.
  }
  throw new TrustError("NOT_A_BUNDLE", "the file is not a trust bundle: no version");
}
