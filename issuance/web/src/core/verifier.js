// Text of a symbol + trust + clock -> verdict with a reason; the steps of verifier.py, in its order.

import texts from "../texts.json";
import { permitFrom, readClaims } from "./codec.js";
import { parse, verifySignature } from "./cose.js";
import { fromText } from "./envelope.js";
import { display } from "./permit-number.js";
import { GENERAL } from "./profile.js";
import { Refusal } from "./types.js";

const GENDERS = { 1: "男", 2: "女", 3: "其他" };
// What Python's `str.isprintable` refuses: controls, formats, surrogates, unassigned, separators.
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/gu;

/**
 * Does this permit stand? Answers for every text and never throws on one.
 *
 * Throws RangeError when the trust bundle's profile knows no such purpose.
 *
 * @param {string} text of the QR symbol
 * @param {import("./trust.js").TrustStore} trust
 * @param {number} now the verifier's clock, ms
 */
export async function verify(text, trust, now, purpose = GENERAL) {
  const fields = trust.rules.shownTo(purpose);
  if (fields === undefined) throw new RangeError("unknown purpose");
  try {
    const permit = await check(text, trust, now, purpose);
    const all = textsOf(permit, trust.rules);
    const shown = fields.filter((name) => all[name]).map((name) => [name, all[name]]);
    return {
      ...verdict("VALID", null, trust.age(now), { until: all.valid_until }, Object.fromEntries(shown)),
      photo: permit.holder.photo,
    };
  } catch (error) {
    if (!(error instanceof Refusal)) {
      // A bug of ours must refuse, not crash. Texts of errors could quote data.
      console.error("verification failed:", error?.name);
      return verdict("INTERNAL", "read", null, {});
    }
    // An age reckoned with a wrong clock would be wrong too.
    const age = trust.clockIsPlausible(now) ? trust.age(now) : null;
    return verdict(error.reason, error.stage, age, error.values);
  }
}

async function check(text, trust, now, purpose) {
  const message = parse(fromText(text));
  checkTrust(trust, now);
  const signer = signerOf(message, trust);
  if (!(await verifySignature(message, signer.key))) throw new Refusal("signature", "BAD_SIGNATURE");
  const permit = permitFrom(readClaims(message.payload), trust.rules);
  if (permit.issuedAt < signer.notBefore || permit.issuedAt >= signer.notAfter) {
    throw new Refusal("claims", "KEY_OUT_OF_PERIOD");
  }
  checkTime(permit, trust.rules, now);
  const status = trust.status(permit.status);
  if (status !== "VALID") throw new Refusal("status", status ?? "STATUS_UNKNOWN");
  if (permit.uses.length && purpose !== GENERAL && !permit.uses.includes(purpose)) {
    throw new Refusal("purpose", "PURPOSE_NOT_ALLOWED");
  }
  return permit;
}

function checkTrust(trust, now) {
  if (!trust.clockIsPlausible(now)) {
    throw new Refusal("trust", "CLOCK_BEFORE_TRUST", { published: trust.rules.minute(trust.floor) });
  }
  if (trust.age(now).freshness === "too-old") {
    throw new Refusal("trust", "TRUST_TOO_OLD", { published: trust.rules.minute(trust.publishedAt) });
  }
}

function signerOf(message, trust) {
  const signer = trust.keys.get(message.kid ?? "");
  if (signer === undefined) throw new Refusal("key", "UNKNOWN_KEY");
  if (signer.use !== "permit") throw new Refusal("key", "WRONG_KEY_USE");
  if (signer.key.algorithm !== message.algorithm) throw new Refusal("key", "ALGORITHM_MISMATCH");
  // Whoever has the key can date a permit to before the theft, so no permit of it is accepted.
  if (signer.compromised) throw new Refusal("key", "KEY_COMPROMISED");
  return signer;
}

function checkTime(permit, rules, now) {
  if (Math.max(permit.notBefore, permit.issuedAt) > now + rules.limits.clock_leeway_s * 1000) {
    throw new Refusal("time", "NOT_YET_VALID", { begin: rules.day(permit.notBefore) });
  }
  // RFC 7519 section 4.1.4: not "on or after" the expiry.
  if (now >= permit.expiresAt) {
    throw new Refusal("time", "EXPIRED", { until: lastDay(permit, rules) });
  }
}

const lastDay = (permit, rules) => rules.day(permit.expiresAt - 1000);

function textsOf(permit, rules) {
  const { holder } = permit;
  const all = {
    ...holder,
    gender: GENDERS[holder.gender],
    permit_number: display(permit.number),
    kind: permit.kind.title_zh,
    authority: permit.authority,
    issued_on: rules.day(permit.issuedAt),
    valid_from: rules.day(permit.notBefore),
    valid_until: lastDay(permit, rules),
  };
  for (const [name, value] of Object.entries(all)) {
    if (typeof value === "string") all[name] = value.replace(UNPRINTABLE, "\ufffd");
  }
  return all;
}

function verdict(reason, stage, age, values, shown = {}) {
  const [en, zh] = texts.sentences[reason].map((sentence) =>
    sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]),
  );
  return {
    valid: reason === "VALID",
    reason,
    stage,
    message_en: en,
    message_zh: zh,
    shown,
    trust: age,
    warnings: age?.freshness === "stale" ? ["TRUST_STALE"] : [],
    photo: null,
  };
}
