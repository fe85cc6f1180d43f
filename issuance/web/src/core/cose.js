// COSE_Sign1 (RFC 9052 section 4.2), read strictly; the rules are those of signing.py.

import { CborError, DuplicateKeyError, Float, Tagged, asInteger, decode, encode } from "./cbor.js";
import { hexOf } from "./bytes.js";
import { EDDSA, ES256 } from "./crypto.js";
import { Refusal } from "./types.js";

const ALG = 1;
const CRIT = 2;
const KID = 4;
const TYP = 16;
const UNDERSTOOD = new Set([ALG, CRIT, KID, TYP]);
const TAG_SIGN1 = 18;
const TAG_CWT = 61;

const refused = (reason) => new Refusal("parse", reason);

/**
 * Read a COSE_Sign1 with tag 18, with tag 61 around it, or without tags.
 *
 * Throws `Refusal` with stage "parse".
 *
 * @returns {{protected: Uint8Array, algorithm: number, kid: string | null,
 *   typ: string | number | bigint | null, payload: Uint8Array, signature: Uint8Array}}
 */
export function parse(data) {
  let item = cborOrRefuse(data);
  for (const tag of [TAG_CWT, TAG_SIGN1]) {
    if (item instanceof Tagged && item.tag === tag) item = item.value;
  }
  if (!Array.isArray(item) || item.length !== 4) throw refused("NOT_A_PERMIT");
  const [raw, unprotectedHeaders, payload, signature] = item;
  const isBytes = (value) => value instanceof Uint8Array;
  if (!isBytes(raw) || !(unprotectedHeaders instanceof Map) || !isBytes(payload) || !isBytes(signature)) {
    throw refused("MALFORMED");
  }
  const headers = raw.length ? cborOrRefuse(raw) : new Map();
  if (!(headers instanceof Map)) throw refused("MALFORMED");
  for (const label of headers.keys()) {
    if (unprotectedHeaders.has(label)) throw refused("DUPLICATE_KEY");
  }
  checkCritical(headers, unprotectedHeaders);
  const kid = (headers.has(KID) ? headers.get(KID) : unprotectedHeaders.get(KID)) ?? null;
  const typ = headers.get(TYP) ?? null;
  const typIsPlain = typ === null || typeof typ === "string" || asInteger(typ) !== undefined;
  if (!(kid === null || isBytes(kid)) || !typIsPlain) throw refused("MALFORMED");
  return {
    protected: raw,
    algorithm: algorithmOf(headers),
    kid: kid === null ? null : hexOf(kid),
    typ,
    payload,
    signature,
  };
}

/** Whether `key` made the signature of `message`. False also if the algorithms differ. */
export async function verifySignature(message, key) {
  if (message.algorithm !== key.algorithm) return false;
  // Sig_structure, RFC 9052 section 4.4; no external data.
  const signed = encode(["Signature1", message.protected, new Uint8Array(0), message.payload]);
  return key.verify(message.signature, signed);
}

function cborOrRefuse(data) {
  try {
    return decode(data);
  } catch (error) {
    if (error instanceof DuplicateKeyError) throw refused("DUPLICATE_KEY");
    if (error instanceof CborError) throw refused("MALFORMED");
    throw error;
  }
}

function checkCritical(headers, unprotectedHeaders) {
  if (unprotectedHeaders.has(CRIT)) throw refused("MALFORMED");
  if (!headers.has(CRIT)) return;
  const labels = headers.get(CRIT);
  if (!Array.isArray(labels) || labels.length === 0) throw refused("MALFORMED");
  for (const label of labels) {
    const plain = asInteger(label) ?? label;
    if (!UNDERSTOOD.has(plain)) throw refused("UNSUPPORTED_CRITICAL");
    if (!headers.has(plain)) throw refused("MALFORMED");
  }
}

function algorithmOf(headers) {
  const value = headers.get(ALG) ?? null;
  if (value === null) throw refused("MALFORMED");
  const plain = value instanceof Float ? value.value : value;
  if (plain !== EDDSA && plain !== ES256) throw refused("UNSUPPORTED_ALGORITHM");
  return plain;
}
