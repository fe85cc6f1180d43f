// Base45 (RFC 9285), strictly: three digits stand for at most two bytes (section 6).

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
const VALUES = new Map(Array.from(DIGITS, (digit, value) => [digit, value]));

/** The bytes that `text` stands for; throws RangeError for any text that no encoder writes. */
export function decode(text) {
  const values = Array.from(text, (digit) => {
    const value = VALUES.get(digit);
    if (value === undefined) throw new RangeError("not a base45 digit");
    return value;
  });
  const left = values.length % 3;
  if (left === 1) throw new RangeError("one digit is left over");
  const bytes = new Uint8Array(((values.length - left) / 3) * 2 + (left ? 1 : 0));
  let to = 0;
  let at = 0;
  for (; at + 3 <= values.length; at += 3) {
    const number = values[at] + values[at + 1] * 45 + values[at + 2] * 2025;
    if (number > 0xffff) throw new RangeError("three digits exceed two bytes");
    bytes[to++] = number >> 8;
    bytes[to++] = number & 255;
  }
  if (left) {
    const number = values[at] + values[at + 1] * 45;
    if (number > 0xff) throw new RangeError("two digits exceed a byte");
    bytes[to] = number;
  }
  return bytes;
}
