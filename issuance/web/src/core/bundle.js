// A trust bundle: the TUF repository in a zip archive of stored members; see bundle.py.

import { TrustError } from "./types.js";
import { joined, textOf, utf8 } from "./bytes.js";

export const MAX_BUNDLE_BYTES = 16 << 20;
const MAX_MEMBERS = 1024;
// PKWARE APPNOTE 6.3: signatures and sizes of the three records.
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END_BYTES = 22;

const refused = (why) => new TrustError("NOT_A_BUNDLE", `the file is not a trust bundle: ${why}`);

/** Path -> content. Throws `TrustError` with reason NOT_A_BUNDLE for anything that is no bundle. */
export function unpack(data) {
  if (data.length > MAX_BUNDLE_BYTES) throw refused(`it is larger than ${MAX_BUNDLE_BYTES} bytes`);
  try {
    return members(data);
  } catch (error) {
    if (error instanceof TrustError) throw error;
    throw refused("it is damaged or something else");
  }
}

const EPOCH = 0x0021; // 1 January 1980, the archive format's own
const VERSION = 20;
const UNIX = 3;
const MODE = 0o644 << 16;

/** The archive of `files` that bundle.py writes, byte for byte; for what a delta leads to. */
export function pack(files) {
  const names = [...files.keys()].sort();
  const locals = [];
  const centrals = [];
  let at = 0;
  for (const name of names) {
    const data = files.get(name);
    const path = utf8(name);
    const facts = [...u16(0, 0, 0, EPOCH), ...u32(crc32(data), data.length, data.length), ...u16(path.length, 0)];
    const local = joined([Uint8Array.from([...u32(LOCAL), ...u16(VERSION), ...facts]), path, data]);
    const made = [...u32(CENTRAL), ...u16((UNIX << 8) | VERSION, VERSION), ...facts, ...u16(0, 0, 0), ...u32(MODE, at)];
    locals.push(local);
    centrals.push(joined([Uint8Array.from(made), path]));
    at += local.length;
  }
  const directory = joined(centrals);
  const end = [...u32(END), ...u16(0, 0, names.length, names.length), ...u32(directory.length, at), ...u16(0)];
  return joined([...locals, directory, Uint8Array.from(end)]);
}

const u16 = (...numbers) => numbers.flatMap((n) => [n & 255, n >> 8]);
const u32 = (...numbers) => numbers.flatMap((n) => [n & 255, (n >>> 8) & 255, (n >>> 16) & 255, n >>> 24]);

function members(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = endRecord(view);
  const count = view.getUint16(end + 10, true);
  if (count > MAX_MEMBERS) throw refused("too many members");
  const files = new Map();
  let total = 0;
  let at = view.getUint32(end + 16, true);
  for (let n = 0; n < count; n += 1) {
    if (view.getUint32(at, true) !== CENTRAL) throw refused("it is damaged");
    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const crc = view.getUint32(at + 16, true);
    const size = view.getUint32(at + 24, true);
    const nameBytes = view.getUint16(at + 28, true);
    const name = textOf(data.subarray(at + 46, at + 46 + nameBytes));
    // Stored, and together no larger than the file: overlapping members cannot multiply.
    total += size;
    if (method !== 0 || flags & 1 || size !== view.getUint32(at + 20, true) || total > data.length) {
      throw refused("its members are compressed or overlap");
    }
    if (files.has(name)) throw refused("two members of one name");
    files.set(name, content(data, view, view.getUint32(at + 42, true), name, size, crc));
    at += 46 + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}

function endRecord(view) {
  const last = view.byteLength - END_BYTES;
  for (let at = last; at >= Math.max(0, last - 0xffff); at -= 1) {
    if (view.getUint32(at, true) === END && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) {
      return at;
    }
  }
  throw refused("it is damaged or something else");
}

function content(data, view, at, name, size, crc) {
  if (view.getUint32(at, true) !== LOCAL) throw refused("it is damaged");
  const nameBytes = view.getUint16(at + 26, true);
  const from = at + 30 + nameBytes + view.getUint16(at + 28, true);
  if (textOf(data.subarray(at + 30, at + 30 + nameBytes)) !== name || from + size > data.length) {
    throw refused("it is damaged");
  }
  const bytes = data.slice(from, from + size);
  if (crc32(bytes) !== crc) throw refused("it is damaged");
  return bytes;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
