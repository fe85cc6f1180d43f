// CWT claims (RFC 8392, Claim 169 v1.2.2) -> permit; leniencies and their order are codec.py's.

import { CborError, DuplicateKeyError, Float, Tagged, asInteger, decode } from "./cbor.js";
import { isValid } from "./permit-number.js";
import { DEPARTMENTS } from "./profile.js";
import { Refusal } from "./types.js";

const ISS = 1;
const SUB = 2;
const EXP = 4;
const NBF = 5;
const IAT = 6;
const CLAIM_169 = 169;
const STATUS = 65535;
const ID = 1;
const FULL_NAME = 4;
const BIRTH_DATE = 8;
const GENDER = 9;
const KIND = 24;
const AUTHORITY = 25;
const USES = 30;
const FACE = 62;
// photo.py: no photograph in a symbol is larger, and only these kinds of image are shown.
const MAX_PHOTO_BYTES = 2048;
const MEDIA_TYPES = { 0: "image/png", 1: "image/jpeg", 4: "image/webp" };
const OPTIONAL_KEYS = {
  latin_name: 19,
  ethnicity: 26,
  residence_address: 10,
  residence_division: 21,
  household_division: 27,
  household_address: 28,
  citizen_id: 29,
};
const GENDER_WORDS = { male: 1, m: 1, female: 2, f: 2, other: 3, others: 3 };
const YEAR_10000_S = 253_402_300_800;
const NAME_OF_CODE = new Map(Object.entries(DEPARTMENTS).map(([name, code]) => [code, name]));

const refused = (reason) => new Refusal("claims", reason);

/** The claims in a signed payload. Throws `Refusal` with stage "claims". */
export function readClaims(payload) {
  let claims = cborOrRefuse(payload);
  if (claims instanceof Tagged && claims.tag === 61) claims = claims.value;
  if (!(claims instanceof Map) || !claims.has(CLAIM_169)) throw refused("NOT_A_PERMIT");
  return {
    issuer: textOrNull(claims, ISS),
    subject: textOrNull(claims, SUB),
    expiresAt: secondsOrNull(claims, EXP),
    notBefore: secondsOrNull(claims, NBF),
    issuedAt: secondsOrNull(claims, IAT),
    status: statusOrNull(claims.get(STATUS) ?? null),
    attributes: attributesOf(claims.get(CLAIM_169)),
  };
}

/** The permit that `claims` state, checked against `profile`. Throws `Refusal`. */
export function permitFrom(claims, profile) {
  const { attributes } = claims;
  if (claims.expiresAt === null) throw refused("MISSING_EXPIRY");
  if (claims.issuer !== profile.issuer) throw refused("WRONG_ISSUER");
  const kind = profile.kindOfCode(asInteger(attributes.get(KIND)));
  if (kind === undefined) throw refused("NOT_A_PERMIT");
  const number = requiredText(attributes, ID);
  if (!isValid(number) || ![null, number].includes(claims.subject)) throw refused("MALFORMED");
  if (claims.issuedAt === null || claims.status === null) throw refused("MALFORMED");
  const notBefore = claims.notBefore ?? claims.issuedAt;
  if (claims.expiresAt - notBefore > kind.max_validity_days * 86_400) throw refused("VALIDITY_TOO_LONG");
  return {
    number,
    kind,
    authority: requiredText(attributes, AUTHORITY),
    holder: holderOf(attributes),
    issuedAt: claims.issuedAt * 1000,
    notBefore: notBefore * 1000,
    expiresAt: claims.expiresAt * 1000,
    status: statusRef(claims.status, profile),
    uses: usesOf(attributes.get(USES) ?? null),
  };
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

function attributesOf(value) {
  const map = value instanceof Uint8Array ? cborOrRefuse(value) : value;
  if (!(map instanceof Map)) throw refused("MALFORMED");
  return map;
}

function textOrNull(map, key) {
  const value = map.get(key) ?? null;
  if (value !== null && typeof value !== "string") throw refused("MALFORMED");
  return value;
}

function requiredText(map, key) {
  const value = textOrNull(map, key);
  if (!value) throw refused("MALFORMED");
  return value;
}

function secondsOrNull(claims, key) {
  const value = claims.get(key) ?? null;
  if (value === null) return null;
  const seconds = value instanceof Float ? Math.floor(value.value) : value;
  // NaN fails both comparisons; a boolean is no time.
  if (typeof seconds !== "number" || !(seconds >= 0 && seconds < YEAR_10000_S)) throw refused("MALFORMED");
  return seconds;
}

function statusOrNull(value) {
  if (value === null) return null;
  const reference = value instanceof Map ? value.get("status_list") : undefined;
  if (reference instanceof Map) {
    const index = asInteger(reference.get("idx"));
    const uri = reference.get("uri");
    if (index !== undefined && index >= 0 && typeof uri === "string") return { uri, index };
  }
  throw refused("MALFORMED");
}

function statusRef({ uri, index }, profile) {
  const prefix = profile.statusUri("");
  const number = uri.startsWith(prefix) ? uri.slice(prefix.length) : "";
  if (!/^[1-9][0-9]{0,8}$/.test(number)) throw refused("MALFORMED");
  return { list: Number(number), index };
}

function holderOf(attributes) {
  const holder = {};
  for (const [name, key] of Object.entries(OPTIONAL_KEYS)) holder[name] = textOrNull(attributes, key);
  holder.full_name = requiredText(attributes, FULL_NAME);
  holder.gender = genderOf(attributes.get(GENDER));
  holder.birth_date = birthDateOf(attributes.get(BIRTH_DATE));
  holder.photo = photoOf(attributes.get(FACE));
  return holder;
}

/**
 * The photograph in attribute 62: in a list as specified, or as the bare map of its example.
 *
 * Null for anything that is not shown; a permit stands with or without its picture.
 */
function photoOf(value) {
  const entry = Array.isArray(value) && value.length ? value[0] : value;
  const data = entry instanceof Map ? entry.get(0) : undefined;
  if (!(data instanceof Uint8Array) || data.length < 1 || data.length > MAX_PHOTO_BYTES) return null;
  const format = entry.has(1) ? entry.get(1) : 0;
  const isImage = (asInteger(format) ?? format?.value) === 0;
  const mediaType = MEDIA_TYPES[asInteger(entry.get(2))];
  return isImage && mediaType ? { mediaType, data } : null;
}

function genderOf(value) {
  let code = value;
  if (typeof value === "string") {
    const word = value.trim().toLowerCase();
    if (Object.hasOwn(GENDER_WORDS, word)) return GENDER_WORDS[word];
    code = /^\+?[0-9]+$/.test(word) ? Number(word) : undefined;
  }
  if (![1, 2, 3].includes(code)) throw refused("MALFORMED");
  return code;
}

function birthDateOf(value) {
  const match = typeof value === "string" ? /^(\d{4})(-?)(\d\d)\2(\d\d)$/.exec(value) : null;
  if (match === null) throw refused("MALFORMED");
  const text = `${match[1]}-${match[3]}-${match[4]}`;
  const date = new Date(`${text}T00:00:00Z`);
  const real = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text);
  if (!real || match[1] === "0000") throw refused("MALFORMED");
  return text;
}

function usesOf(value) {
  if (value === null) return [];
  if (!Array.isArray(value)) throw refused("MALFORMED");
  return value.map((item) => {
    const code = asInteger(item);
    if (code === undefined) throw refused("MALFORMED");
    // An unknown department is kept, so that it never widens what is allowed.
    return NAME_OF_CODE.get(code) ?? `department-${code}`;
  });
}
