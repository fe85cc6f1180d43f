// Token Status List (IETF draft-ietf-oauth-status-list) in CWT form; see status_list.py.

import { CborError, asInteger, decode } from "./cbor.js";
import { parse, verifySignature } from "./cose.js";
import { Refusal } from "./types.js";
import { TooLargeError, unzlib } from "./zlib.js";

const TYP = "application/statuslist+cwt";
const SUB = 2;
const EXP = 4;
const IAT = 6;
const TTL = 65534;
const STATUS_LIST = 65533;
export const MAX_LIST_BYTES = 1 << 22;

const refused = (reason) => new Refusal("status", reason);

/** Statuses by index; entries are packed from the least significant bit of each byte upwards. */
export class StatusList {
  constructor(bits, data) {
    this.bits = bits;
    this.data = data;
    this.length = Math.floor((data.length * 8) / bits);
  }

  /** The status at `index`, which must be below `length`. */
  at(index) {
    const bit = index * this.bits;
    return (this.data[bit >> 3] >> (bit & 7)) & ((1 << this.bits) - 1);
  }
}

export const kidOf = (data) => parse(data).kid;

/** Read a Status List Token that `key` must have signed. Throws `Refusal`. */
export async function read(data, key) {
  const message = parsed(data);
  if (!(await verifySignature(message, key))) throw refused("BAD_SIGNATURE");
  return contentOf(message);
}

/** The entries of a token whose signature was verified when its bundle was taken. */
export const statusesOf = (data) => contentOf(parsed(data)).statuses;

function parsed(data) {
  const message = parse(data);
  if (message.typ !== TYP) throw refused("MALFORMED");
  return message;
}

function contentOf(message) {
  let claims;
  try {
    claims = decode(message.payload);
  } catch (error) {
    throw error instanceof CborError ? refused("MALFORMED") : error;
  }
  if (!(claims instanceof Map) || typeof claims.get(SUB) !== "string") throw refused("MALFORMED");
  if (asInteger(claims.get(IAT)) === undefined) throw refused("MALFORMED");
  for (const name of [EXP, TTL]) {
    const value = claims.get(name) ?? null;
    if (value !== null && asInteger(value) === undefined) throw refused("MALFORMED");
  }
  return { uri: claims.get(SUB), statuses: fromValue(claims.get(STATUS_LIST)) };
}

function fromValue(value) {
  const bits = value instanceof Map ? asInteger(value.get("bits")) : undefined;
  const packed = value instanceof Map ? value.get("lst") : undefined;
  if (![1, 2, 4, 8].includes(bits) || !(packed instanceof Uint8Array)) throw refused("MALFORMED");
  try {
    return new StatusList(bits, unzlib(packed, MAX_LIST_BYTES));
  } catch (error) {
    throw refused(error instanceof TooLargeError ? "TOO_LARGE" : "MALFORMED");
  }
}
