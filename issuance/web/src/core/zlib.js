// zlib streams (RFC 1950) of deflated data (RFC 1951), unpacked into at most `limit` bytes.
//
// The browser's own DecompressionStream hands out a bomb in pieces of its own size, tells damage
// from an early end differently in every engine, and is not there in older ones. This one stops at
// the first byte too many, and answers the same everywhere.

export class DamagedError extends Error {}
export class TooLargeError extends Error {}

// RFC 1951 section 3.2.5.
export const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
export const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
const DISTANCE_EXTRA = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
// Section 3.2.7: the order in which lengths of code lengths are written.
export const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MAX_BITS = 15;

/** Whether `bytes` begin like zlib: method 8, and the first two are a multiple of 31. */
export const looksLikeZlib = (bytes) =>
  bytes.length >= 2 && (bytes[0] & 15) === 8 && ((bytes[0] << 8) | bytes[1]) % 31 === 0;

/**
 * Unpack one zlib stream with nothing after it.
 *
 * Throws TooLargeError at the first byte beyond `limit`, DamagedError for anything else wrong.
 */
export function unzlib(bytes, limit) {
  if (!looksLikeZlib(bytes)) throw new DamagedError("not zlib data");
  if (bytes[0] >> 4 > 7) throw new DamagedError("invalid window size");
  if (bytes[1] & 32) throw new DamagedError("needs a dictionary");
  const bits = new Bits(bytes, 2);
  const output = new Output(limit);
  for (let last = 0; !last; ) {
    last = bits.take(1);
    const type = bits.take(2);
    if (type === 0) stored(bits, output);
    else if (type === 1) compressed(bits, output, FIXED_LENGTHS, FIXED_DISTANCES);
    else if (type === 2) compressed(bits, output, ...dynamicCodes(bits));
    else throw new DamagedError("invalid block type");
  }
  const data = output.bytes();
  const end = bits.align();
  if (end + 4 > bytes.length) throw new DamagedError("ends early");
  const sum = ((bytes[end] << 24) | (bytes[end + 1] << 16) | (bytes[end + 2] << 8) | bytes[end + 3]) >>> 0;
  if (sum !== adler32(data)) throw new DamagedError("wrong checksum");
  if (end + 4 !== bytes.length) throw new DamagedError("goes on after its end");
  return data;
}

class Bits {
  constructor(bytes, at) {
    this.data = bytes;
    this.at = at;
    this.hold = 0;
    this.count = 0;
  }

  take(count) {
    while (this.count < count) {
      if (this.at >= this.data.length) throw new DamagedError("ends early");
      this.hold |= this.data[this.at++] << this.count;
      this.count += 8;
    }
    const value = this.hold & ((1 << count) - 1);
    this.hold >>>= count;
    this.count -= count;
    return value;
  }

  /** Position of the next whole byte; bits before it are dropped. */
  align() {
    this.at -= this.count >> 3;
    this.hold = 0;
    this.count = 0;
    return this.at;
  }
}

class Output {
  constructor(limit) {
    this.limit = limit;
    this.data = new Uint8Array(Math.min(limit, 4096));
    this.used = 0;
  }

  room(count) {
    const needed = this.used + count;
    if (needed > this.limit) throw new TooLargeError("unpacks to more than allowed");
    if (needed <= this.data.length) return;
    const larger = new Uint8Array(Math.min(this.limit, Math.max(needed, this.data.length * 4)));
    larger.set(this.data.subarray(0, this.used));
    this.data = larger;
  }

  repeat(length, distance) {
    if (distance > this.used) throw new DamagedError("refers to before its beginning");
    this.room(length);
    const { data } = this;
    const end = this.used + length;
    for (let at = this.used; at < end; at += 1) data[at] = data[at - distance];
    this.used = end;
  }

  bytes() {
    return this.data.slice(0, this.used);
  }
}

function stored(bits, output) {
  const at = bits.align();
  const { data } = bits;
  if (at + 4 > data.length) throw new DamagedError("ends early");
  const length = data[at] | (data[at + 1] << 8);
  if ((length ^ 0xffff) !== (data[at + 2] | (data[at + 3] << 8))) {
    throw new DamagedError("stored block with a wrong length");
  }
  const present = Math.min(length, data.length - at - 4);
  output.room(present);
  output.data.set(data.subarray(at + 4, at + 4 + present), output.used);
  output.used += present;
  if (present < length) throw new DamagedError("ends early");
  bits.at = at + 4 + length;
}

function compressed(bits, output, lengths, distances) {
  for (;;) {
    const symbol = read(bits, lengths);
    if (symbol < 256) {
      output.room(1);
      output.data[output.used++] = symbol;
    } else if (symbol === 256) {
      return;
    } else {
      const index = symbol - 257;
      if (index >= LENGTH_BASE.length) throw new DamagedError("invalid length");
      const length = LENGTH_BASE[index] + bits.take(LENGTH_EXTRA[index]);
      const far = read(bits, distances);
      if (far >= DISTANCE_BASE.length) throw new DamagedError("invalid distance");
      output.repeat(length, DISTANCE_BASE[far] + bits.take(DISTANCE_EXTRA[far]));
    }
  }
}

/** Canonical Huffman code (section 3.2.2) of code lengths: how many of each, and symbols in order. */
function codeOf(lengths, mayBeIncomplete) {
  const counts = new Uint16Array(MAX_BITS + 1);
  for (const length of lengths) counts[length] += 1;
  const used = lengths.length - counts[0];
  counts[0] = 0;
  let left = 1;
  for (let length = 1; length <= MAX_BITS; length += 1) {
    left = 2 * left - counts[length];
    if (left < 0) throw new DamagedError("oversubscribed code");
  }
  // A single distance may have a code of one bit, and no distance none at all.
  const lonely = used === 0 || (used === 1 && counts[1] === 1);
  if (left > 0 && !(mayBeIncomplete && lonely)) throw new DamagedError("incomplete code");
  const starts = new Uint16Array(MAX_BITS + 2);
  for (let length = 1; length <= MAX_BITS; length += 1) starts[length + 1] = starts[length] + counts[length];
  const symbols = new Uint16Array(used);
  lengths.forEach((length, symbol) => {
    if (length) symbols[starts[length]++] = symbol;
  });
  return { counts, symbols };
}

function read(bits, { counts, symbols }) {
  let code = 0;
  let first = 0;
  let index = 0;
  for (let length = 1; length <= MAX_BITS; length += 1) {
    code |= bits.take(1);
    const count = counts[length];
    if (code - count < first) return symbols[index + (code - first)];
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  throw new DamagedError("invalid code");
}

function dynamicCodes(bits) {
  const literals = bits.take(5) + 257;
  const distances = bits.take(5) + 1;
  const count = bits.take(4) + 4;
  if (literals > 286 || distances > 30) throw new DamagedError("too many codes");
  const short = new Uint8Array(19);
  for (let at = 0; at < count; at += 1) short[ORDER[at]] = bits.take(3);
  const code = codeOf(short, false);
  const lengths = [];
  while (lengths.length < literals + distances) {
    const symbol = read(bits, code);
    if (symbol < 16) {
      lengths.push(symbol);
      continue;
    }
    if (symbol === 16 && lengths.length === 0) throw new DamagedError("repeats nothing");
    const value = symbol === 16 ? lengths[lengths.length - 1] : 0;
    const times = symbol === 16 ? 3 + bits.take(2) : symbol === 17 ? 3 + bits.take(3) : 11 + bits.take(7);
    for (let n = 0; n < times; n += 1) lengths.push(value);
  }
  if (lengths.length > literals + distances) throw new DamagedError("repeats too much");
  if (lengths[256] === 0) throw new DamagedError("no end of block");
  return [codeOf(lengths.slice(0, literals), true), codeOf(lengths.slice(literals), true)];
}

const FIXED_LENGTHS = codeOf(
  Array.from({ length: 288 }, (_, n) => (n < 144 ? 8 : n < 256 ? 9 : n < 280 ? 7 : 8)),
  false,
);
const FIXED_DISTANCES = codeOf(Array(32).fill(5), false);

export function adler32(data) {
  let a = 1;
  let b = 0;
  for (let at = 0; at < data.length; ) {
    // 3,800 bytes keep both sums below 2**32.
    const end = Math.min(at + 3800, data.length);
    for (; at < end; at += 1) {
      a += data[at];
      b += a;
    }
    a %= 65521;
    b %= 65521;
  }
  return ((b << 16) | a) >>> 0;
}
