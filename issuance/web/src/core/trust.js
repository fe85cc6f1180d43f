// What a verifier knows: keys, profile and status lists out of a checked trust bundle; trust.py.

import * as bundle from "./bundle.js";
import { fromHex, hexOf, instantOf, textOf } from "./bytes.js";
import { EDDSA, ES256, PublicKey, sha256 } from "./crypto.js";
import { readProfile } from "./profile.js";
import * as statusList from "./status-list.js";
import { verifyRepository } from "./tuf.js";
import { TrustError, badTrust } from "./types.js";

const ALGORITHMS = { EDDSA, ES256 };
const USES = [
  "permit",
  "status-list",
  "trust-root",
  "trust-targets",
  "trust-status",
  "trust-snapshot",
  "trust-timestamp",
];
const STATUSES = ["VALID", "REVOKED", "SUSPENDED"];

export class TrustStore {
  /** @param {object} parts see `load` */
  constructor(parts) {
    Object.assign(this, parts);
    Object.freeze(this);
  }

  /** The same knowledge with another time floor. */
  withFloor(floor) {
    return new TrustStore({ ...this, floor });
  }

  /** How old the bundle is at `now` (ms), and what that means by its own limits. */
  age(now) {
    const seconds = (now - this.publishedAt) / 1000;
    const { fresh_s, max_age_s } = this.rules.limits;
    const tooOld = seconds > max_age_s || now >= this.expiresAt;
    const freshness = tooOld ? "too-old" : seconds <= fresh_s ? "fresh" : "stale";
    return { freshness, publishedAt: this.publishedAt, seconds };
  }

  /** Whether `now` is not before the newest signed time seen, but for the leeway. */
  clockIsPlausible(now) {
    return now + this.rules.limits.clock_leeway_s * 1000 >= this.floor;
  }

  /** "VALID", "REVOKED", "SUSPENDED", or undefined where the bundle has no answer. */
  status({ list, index }) {
    const entries = this.lists.get(list);
    if (entries === undefined || index >= entries.length) return undefined;
    return STATUSES[entries.at(Number(index))];
  }
}

/**
 * Check a bundle and read it. Needs no clock: age is judged at each verification.
 *
 * Throws `TrustError`: NOT_A_BUNDLE, BAD_TRUST, WRONG_ROOT or ROLLBACK.
 *
 * @param {Uint8Array} data
 * @param {object | null} memory from the last load on this device; null on first use
 */
export async function load(data, memory = null) {
  const repository = await verifyRepository(bundle.unpack(data), memory);
  try {
    const rules = readProfile(repository.files.get("profile.json"));
    const keys = await keysOf(repository.files.get("keys.json"));
    return new TrustStore({
      rules,
      keys,
      lists: await listsOf(repository.files, rules, keys),
      publishedAt: repository.publishedAt,
      expiresAt: repository.expiresAt,
      floor: repository.memory.floor,
      version: repository.version,
      rootFingerprint: repository.firstRootSha256,
      anchored: repository.anchored,
      memory: repository.memory,
    });
  } catch (error) {
    if (error instanceof TrustError) throw error;
    throw badTrust("it lacks what it must hold");
  }
}

async function keysOf(data) {
  const document = JSON.parse(textOf(data));
  if (document.version !== 1) throw badTrust("unknown version of keys.json");
  const keys = new Map();
  for (const entry of document.keys) {
    const der = fromHex(entry.public_der);
    const key = PublicKey.fromDer(der);
    const kid = hexOf((await sha256(der)).subarray(0, 8));
    const known = Object.hasOwn(ALGORITHMS, entry.algorithm) && USES.includes(entry.use);
    if (!known || kid !== entry.kid || ALGORITHMS[entry.algorithm] !== key.algorithm || keys.has(kid)) {
      throw badTrust("a key is listed twice or wrongly");
    }
    keys.set(kid, {
      key,
      use: entry.use,
      notBefore: instantOf(entry.not_before),
      notAfter: instantOf(entry.not_after),
      compromised: entry.compromised_at !== null && Boolean(instantOf(entry.compromised_at) + 1),
    });
  }
  return keys;
}

async function listsOf(files, rules, keys) {
  const lists = new Map();
  for (const [path, data] of files) {
    if (!path.startsWith("status/")) continue;
    const number = path.slice("status/".length);
    if (!/^[0-9]{1,9}$/.test(number)) throw badTrust("a status list without a number");
    const signer = keys.get(statusList.kidOf(data) ?? "");
    if (signer?.use !== "status-list") throw badTrust("a status list of an unknown key");
    const token = await statusList.read(data, signer.key);
    // A list of one name under the file name of another would answer for the wrong permits.
    if (token.uri !== rules.statusUri(Number(number))) throw badTrust("a status list has another name");
    lists.set(Number(number), token.statuses);
  }
  return lists;
}
