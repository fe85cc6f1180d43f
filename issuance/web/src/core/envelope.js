// The text of the QR symbol -> COSE bytes: base45, then zlib, both bounded; see envelope.py.

import * as base45 from "./base45.js";
import { Refusal } from "./types.js";
import { TooLargeError, looksLikeZlib, unzlib } from "./zlib.js";

export const MAX_TEXT_CHARS = 4296; // version 40, level L, ISO/IEC 18004 table 7
export const MAX_COSE_BYTES = 16_384;

const refused = (reason) => new Refusal("read", reason);

/** The COSE bytes in the text of a symbol. Throws `Refusal` with stage "read". */
export function fromText(text) {
  if (text.length > 2 * (MAX_TEXT_CHARS + 4)) throw refused("TOO_LARGE");
  const characters = Array.from(text).length;
  if (characters > MAX_TEXT_CHARS + 4) throw refused("TOO_LARGE");
  const digits = text.replace(/^[\r\n]+|[\r\n]+$/g, "");
  if (characters - (text.length - digits.length) > MAX_TEXT_CHARS) throw refused("TOO_LARGE");
  let compressed;
  try {
    compressed = base45.decode(digits);
  } catch {
    throw refused("NOT_A_PERMIT");
  }
  if (!looksLikeZlib(compressed)) throw refused("NOT_A_PERMIT");
  try {
    return unzlib(compressed, MAX_COSE_BYTES);
  } catch (error) {
    throw refused(error instanceof TooLargeError ? "TOO_LARGE" : "MALFORMED");
  }
}
