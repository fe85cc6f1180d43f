// The client's half of The Update Framework (specification 1.0, section 5), all in memory.
//
// The steps and their order are those of repository.py, which explains them. Metadata is parsed as
// JSON and signed as OLPC canonical JSON: keys in code point order, no whitespace, only quotation
// mark and backslash escaped, no fractions.

import { fromHex, instantOf, textOf, utf8 } from "./bytes.js";
import { EDDSA, ES256, PublicKey, sha256Hex } from "./crypto.js";
import { fromBase64 } from "./bytes.js";
import { TrustError, badTrust } from "./types.js";

const PUBLISHED_FIELD = "x-anju-published";
const STATUS_ROLE = "status";
const TOP_LEVEL = ["root", "snapshot", "targets", "timestamp"];
const MAX_ROOTS = 256; // one root a year lasts longer than any of us

const rollback = (what) =>
  new TrustError("ROLLBACK", `the bundle is older than one used here before (${what}); fetch the newest`);
const wrongRoot = () =>
  new TrustError("WRONG_ROOT", "the trust bundle belongs to another authority than the one trusted here");

/**
 * Check `files` (path -> bytes) against what is remembered.
 *
 * Throws `TrustError`: ROLLBACK, WRONG_ROOT or BAD_TRUST.
 *
 * @param {Map<string, Uint8Array>} files
 * @param {Memory | null} memory
 */
export async function verifyRepository(files, memory) {
  try {
    return await verify(files, memory);
  } catch (error) {
    if (error instanceof TrustError) throw error;
    throw badTrust("the trust metadata is malformed or incomplete");
  }
}

async function verify(files, memory) {
  const roots = collectRoots(files);
  const newest = await walkRoots(roots, memory);
  const known = knownVersions(roots, newest, memory);

  const timestamp = await load("timestamp", "timestamp", file(files, "metadata/timestamp.json"), newest);
  notOlder("timestamp", timestamp, known);
  const snapshot = await loadPinned("snapshot", "snapshot", files, own(timestamp.meta, "snapshot.json"), newest);
  notOlder("snapshot", snapshot, known);
  const targets = await loadPinned("targets", "targets", files, own(snapshot.meta, "targets.json"), newest);
  const delegated = delegator(targets);
  const status = await loadPinned("targets", STATUS_ROLE, files, own(snapshot.meta, "status.json"), delegated);
  notOlder("targets", targets, known);
  notOlder(STATUS_ROLE, status, known);

  const contents = await collectContents(files, targets, status, delegated.roles[STATUS_ROLE]);
  const publishedAt = instantOf(own(timestamp, PUBLISHED_FIELD));
  const all = [newest, timestamp, snapshot, targets, status];
  if (publishedAt > timestamp.expiresAt) throw badTrust("the time of publication makes no sense");
  const rotated = memory !== null && Object.keys(known).length === 0;
  const versions = {
    timestamp: timestamp.version,
    snapshot: snapshot.version,
    targets: targets.version,
    status: status.version,
  };
  return {
    files: contents,
    publishedAt,
    expiresAt: Math.min(...all.map((signed) => signed.expiresAt)),
    version: timestamp.version,
    firstRootSha256: await sha256Hex(roots[0]),
    anchored: memory !== null,
    memory: {
      rootVersion: newest.version,
      rootSha256: await sha256Hex(roots[newest.version - 1]),
      floor: memory === null || rotated ? publishedAt : Math.max(memory.floor, publishedAt),
      versions,
    },
  };
}

function collectRoots(files) {
  const roots = [];
  for (let data; (data = files.get(`metadata/${roots.length + 1}.root.json`)) !== undefined; ) {
    roots.push(data);
    if (roots.length > MAX_ROOTS) throw badTrust("too many roots");
  }
  if (roots.length === 0) throw badTrust("there is no root metadata");
  return roots;
}

async function walkRoots(roots, memory) {
  let start = 1;
  if (memory !== null) {
    start = memory.rootVersion;
    if (start > roots.length) throw rollback("root");
    if ((await sha256Hex(roots[start - 1])) !== memory.rootSha256) throw wrongRoot();
  }
  let metadata = parse("root", roots[start - 1]);
  let current = metadata.signed;
  await checkSigned("root", metadata, current);
  if (current.version !== start) throw badTrust("a root has the wrong version");
  for (let version = start + 1; version <= roots.length; version += 1) {
    metadata = parse("root", roots[version - 1]);
    await checkSigned("root", metadata, current);
    current = metadata.signed;
    await checkSigned("root", metadata, current);
    if (current.version !== version) throw badTrust("a root has the wrong version");
  }
  return current;
}

/** Versions that must not be undercut; none once the online keys have been replaced (5.3.11). */
function knownVersions(roots, newest, memory) {
  if (memory === null) return {};
  const before = parse("root", roots[memory.rootVersion - 1]).signed;
  for (const role of ["timestamp", "snapshot"]) {
    if (before.roles[role].keyids.join() !== newest.roles[role].keyids.join()) return {};
  }
  return memory.versions;
}

async function load(type, role, data, from) {
  const metadata = parse(type, data);
  await checkSigned(role, metadata, from);
  return metadata.signed;
}

async function loadPinned(type, role, files, pin, from) {
  const data = file(files, `metadata/${pin.version}.${role}.json`);
  await checkFile(pin, data, role);
  const signed = await load(type, role, data, from);
  if (signed.version !== pin.version) throw badTrust(`${role} has another version than promised`);
  return signed;
}

/** Metadata of one role: its signed part, the bytes that were signed, and who signed. */
function parse(type, data) {
  const document = JSON.parse(textOf(data));
  const { signed } = document;
  if (signed._type !== type) throw badTrust(`${type} is metadata of another type`);
  const [major, ...minors] = signed.spec_version.split(".");
  if (major !== "1" || ![1, 2].includes(minors.length)) throw badTrust("unknown specification");
  if (!Number.isSafeInteger(signed.version) || signed.version < 1) throw badTrust("no version");
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(signed.expires)) throw badTrust("no expiry");
  const signatures = new Map();
  for (const { keyid, sig } of document.signatures) {
    if (signatures.has(keyid)) throw badTrust("two signatures of one key");
    signatures.set(keyid, fromHex(sig));
  }
  const payload = utf8(canonical(signed));
  signed.expiresAt = instantOf(signed.expires);
  if (type === "root") {
    if (Object.keys(signed.roles).sort().join() !== TOP_LEVEL.join()) throw badTrust("wrong roles");
    Object.values(signed.roles).forEach(checkRole);
  }
  return { signed, payload, signatures };
}

function checkRole(role) {
  const unique = Array.isArray(role.keyids) && new Set(role.keyids).size === role.keyids.length;
  if (!unique || !Number.isSafeInteger(role.threshold) || role.threshold < 1) {
    throw badTrust("a role without keys or threshold");
  }
}

/** The targets role as a delegator: it speaks for the status role by its own list of keys. */
function delegator(targets) {
  const { keys, roles } = targets.delegations;
  const named = roles.filter((role) => role.name === STATUS_ROLE);
  if (named.length !== 1) throw badTrust("status lists are not delegated");
  checkRole(named[0]);
  return { keys, roles: { [STATUS_ROLE]: named[0] } };
}

/** Throws unless a threshold of the keys that `from` names for `role` signed. */
async function checkSigned(role, { payload, signatures }, from) {
  const { keyids, threshold } = own(from.roles, role);
  let good = 0;
  for (const keyid of keyids) {
    const signature = signatures.get(keyid);
    if (signature === undefined || !Object.hasOwn(from.keys, keyid)) continue;
    if (await verifies(from.keys[keyid], signature, payload)) good += 1;
  }
  if (good < threshold) throw badTrust(`${role} is signed by ${good} of ${threshold} keys`);
}

async function verifies({ keytype, scheme, keyval }, signature, payload) {
  if (keytype === "ed25519" && scheme === "ed25519") {
    const raw = fromHex(keyval.public);
    return raw.length === 32 && new PublicKey(EDDSA, raw).verify(signature, payload);
  }
  if (keytype === "ecdsa" && scheme === "ecdsa-sha2-nistp256") {
    const key = PublicKey.fromDer(fromBase64(keyval.public.replace(/-----[^-]+-----|\s/g, "")));
    return key.algorithm === ES256 && key.verify(rawEcdsa(signature), payload);
  }
  return false;
}

/** ECDSA-Sig-Value (RFC 3279 section 2.2.3) -> r || s; empty, and so refused, if it is none. */
function rawEcdsa(der) {
  const none = new Uint8Array(0);
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return none;
  const raw = new Uint8Array(64);
  let at = 2;
  for (const end of [32, 64]) {
    const length = der[at + 1];
    if (der[at] !== 2 || !(length > 0) || at + 2 + length > der.length) return none;
    let number = der.subarray(at + 2, at + 2 + length);
    if (number.length === 33 && number[0] === 0) number = number.subarray(1);
    if (number.length > 32) return none;
    raw.set(number, end - number.length);
    at += 2 + length;
  }
  return at === der.length ? raw : none;
}

async function checkFile(pin, data, name) {
  const sha256 = pin.hashes?.sha256;
  // In TUF hashes are optional; here they are not. A hash of another kind would be another check.
  if (!sha256 || Object.keys(pin.hashes).length !== 1 || !Number.isSafeInteger(pin.length)) {
    throw badTrust(`${name} is not pinned by length and hash`);
  }
  if (data.length !== pin.length || (await sha256Hex(data)) !== sha256) {
    throw badTrust(`${name} is not the file that was signed`);
  }
}

function notOlder(role, { version }, known) {
  const seen = known[role] ?? 0;
  if (version < seen) throw rollback(`${role} ${version}, seen ${seen}`);
}

async function collectContents(files, targets, status, statusRole) {
  const named = new Map(Object.entries(targets.targets));
  for (const [path, pin] of Object.entries(status.targets)) {
    // The status key speaks for status lists only, whatever it signs.
    if (named.has(path) || !isDelegated(path, statusRole)) {
      throw badTrust("the status role names a file that is not its own");
    }
    named.set(path, pin);
  }
  const contents = new Map();
  for (const [path, pin] of named) {
    const slash = path.lastIndexOf("/") + 1;
    const stored = `${path.slice(0, slash)}${pin.hashes.sha256}.${path.slice(slash)}`;
    const data = file(files, `targets/${stored}`);
    await checkFile(pin, data, path);
    contents.set(path, data);
  }
  return contents;
}

function isDelegated(path, role) {
  const parts = path.split("/");
  return role.paths.some((pattern) => {
    const patterns = pattern.split("/");
    return patterns.length === parts.length && patterns.every((glob, n) => matches(parts[n], glob));
  });
}

/** Shell patterns with `*` and `?`; sets in brackets are not used and match nothing. */
function matches(part, glob) {
  const quoted = glob.replace(/[\\^$.|+(){}[\]]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".");
  return new RegExp(`^(?:${quoted})$`, "su").test(part);
}

/** OLPC canonical JSON, as securesystemslib signs it. */
export function canonical(value) {
  if (typeof value === "string") return `"${value.replace(/[\\"]/g, "\\$&")}"`;
  if (value === null || typeof value === "boolean") return String(value);
  if (Number.isSafeInteger(value)) return String(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object") throw badTrust("metadata holds a number that is not whole");
  const keys = Object.keys(value).sort(byCodePoint);
  return `{${keys.map((key) => `${canonical(key)}:${canonical(value[key])}`).join(",")}}`;
}

function byCodePoint(left, right) {
  const [a, b] = [Array.from(left), Array.from(right)];
  for (let n = 0; n < Math.min(a.length, b.length); n += 1) {
    const difference = a[n].codePointAt(0) - b[n].codePointAt(0);
    if (difference) return difference;
  }
  return a.length - b.length;
}

function own(object, key) {
  if (!Object.hasOwn(object, key)) throw badTrust(`${key} is missing`);
  return object[key];
}

function file(files, path) {
  const data = files.get(path);
  if (data === undefined) throw badTrust("a file is missing");
  return data;
}
