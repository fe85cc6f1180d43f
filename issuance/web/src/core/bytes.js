// Bytes, hexadecimal, base64, UTF-8, and instants.

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ENCODER = new TextEncoder();

export const utf8 = (text) => ENCODER.encode(text);

/** Text of `bytes`; throws TypeError unless they are UTF-8. */
export const textOf = (bytes) => UTF8.decode(bytes);

export const hexOf = (bytes) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Inverse of `hexOf`; throws TypeError for anything else. */
export function fromHex(text) {
  if (typeof text !== "string" || !/^(?:[0-9a-f]{2})*$/i.test(text)) throw new TypeError("not hex");
  const bytes = new Uint8Array(text.length / 2);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  }
  return bytes;
}

export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** Every byte a character, as `bytes.decode("latin-1")` does. */
export function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  }
  return text;
}

export function equal(left, right) {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

export function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const ISO =
  /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?(?:(Z)|([+-])(\d\d):?(\d\d))$/;

/** Milliseconds since 1970 of an ISO 8601 time with a zone; throws TypeError for anything else. */
export function instantOf(text) {
  const match = typeof text === "string" ? ISO.exec(text) : null;
  if (match === null) throw new TypeError("not a time with a zone");
  const [, year, month, day, hour, minute, second = "0", fraction = "", , sign, zoneH, zoneM] = match;
  const whole = `${year}-${month}-${day}T${hour}:${minute}:${second.padStart(2, "0")}Z`;
  const date = new Date(whole);
  // Date rolls 30 February over into March.
  if (Number.isNaN(date.getTime()) || date.getUTCDate() !== Number(day) || hour === "24") {
    throw new TypeError("not a time");
  }
  const offset = sign ? (sign === "-" ? -1 : 1) * (Number(zoneH) * 60 + Number(zoneM)) : 0;
  return date.getTime() + Number(fraction.padEnd(6, "0")) / 1000 - offset * 60_000;
}
