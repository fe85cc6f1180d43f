// Hashes and signatures: the browser's own where it has them, otherwise in JavaScript.
//
// WebCrypto is missing on pages that a plain http server in an office network hands out, and
// Ed25519 in it is younger than many counters' browsers. The replacement verifies public data
// only, so its timing reveals nothing. Both give the same answers; the tests run on each.

import { ed25519 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { sha256 as nobleSha256 } from "@noble/hashes/sha2.js";
import { equal, fromHex, hexOf } from "./bytes.js";

export const EDDSA = -8; // with Ed25519, RFC 9053 section 2.2
export const ES256 = -7; // ECDSA on P-256 with SHA-256, section 2.1

const ED25519_PREFIX = fromHex("302a300506032b6570032100"); // RFC 8410 section 4
const P256_PREFIX = fromHex("3059301306072a8648ce3d020106082a8648ce3d030107034200"); // RFC 5480
const subtle = globalThis.crypto?.subtle;
let native = subtle !== undefined;

/** Whether the browser's own cryptography is used; `false` switches it off, for tests. */
export function useNative(wanted) {
  if (wanted !== undefined) native = wanted && subtle !== undefined;
  return native;
}

export async function sha256(data) {
  if (native) return new Uint8Array(await subtle.digest("SHA-256", data));
  return nobleSha256(data);
}

export const sha256Hex = async (data) => hexOf(await sha256(data));

/** A key that signatures are verified with, for one algorithm only. */
export class PublicKey {
  constructor(algorithm, raw) {
    this.algorithm = algorithm;
    this.raw = raw;
  }

  /** From a SubjectPublicKeyInfo. Throws TypeError unless Ed25519 or P-256, uncompressed. */
  static fromDer(der) {
    const begins = (prefix) => equal(der.subarray(0, prefix.length), prefix);
    if (begins(ED25519_PREFIX) && der.length === ED25519_PREFIX.length + 32) {
      return new PublicKey(EDDSA, der.slice(ED25519_PREFIX.length));
    }
    if (begins(P256_PREFIX) && der.length === P256_PREFIX.length + 65 && der[P256_PREFIX.length] === 4) {
      return new PublicKey(ES256, der.slice(P256_PREFIX.length));
    }
    throw new TypeError("public key is neither Ed25519 nor P-256");
  }

  /** Whether this key made `signature` (64 bytes, for ECDSA `r || s`) of `message`. */
  async verify(signature, message) {
    if (signature.length !== 64) return false;
    if (native) {
      try {
        return await this.#verifyNatively(signature, message);
      } catch (error) {
        // An older browser knows P-256 and not Ed25519.
        if (error?.name !== "NotSupportedError") return false;
      }
    }
    try {
      return this.algorithm === EDDSA
        ? ed25519.verify(signature, message, this.raw, { zip215: false })
        : p256.verify(signature, message, this.raw, { lowS: false });
    } catch {
      return false;
    }
  }

  async #verifyNatively(signature, message) {
    const eddsa = this.algorithm === EDDSA;
    const scheme = eddsa ? { name: "Ed25519" } : { name: "ECDSA", namedCurve: "P-256" };
    this.imported ??= subtle.importKey("raw", this.raw, scheme, false, ["verify"]);
    const how = eddsa ? scheme : { name: "ECDSA", hash: "SHA-256" };
    return subtle.verify(how, await this.imported, signature, message);
  }
}
