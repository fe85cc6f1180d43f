// The rules of the issuing city, as its trust bundle publishes them; see profile.py.

import { textOf } from "./bytes.js";
import texts from "../texts.json";
import { badTrust } from "./types.js";

export const GENERAL = "general";
export const SHOWABLE = texts.showable;
export const DEPARTMENTS = texts.departments;

const MAX_VALIDITY_DAYS = 365;

/** Throws `TrustError` for anything that `profile.to_json` does not write. */
export function readProfile(data) {
  const document = JSON.parse(textOf(data));
  if (document.version !== 1) throw badTrust("its profile has an unknown version, update this page");
  const profile = new Profile(document);
  check(profile);
  return profile;
}

export class Profile {
  constructor(document) {
    this.issuer = document.issuer;
    this.authority = document.authority;
    this.offsetMs = document.utc_offset_h * 3_600_000;
    this.limits = document.limits;
    this.kinds = document.kinds;
    this.disclosure = document.disclosure;
  }

  kindOfCode(code) {
    return this.kinds.find((kind) => kind.code === code);
  }

  /** Fields shown for `purpose`, in display order; undefined for an unknown purpose. */
  shownTo(purpose) {
    if (!Object.hasOwn(this.disclosure, purpose)) return undefined;
    return SHOWABLE.filter((name) => this.disclosure[purpose].includes(name));
  }

  statusUri(number) {
    return `${this.issuer}/status/${number}`;
  }

  /** `YYYY-MM-DD` in the city. */
  day(ms) {
    return new Date(ms + this.offsetMs).toISOString().slice(0, 10);
  }

  /** `YYYY-MM-DD HH:MM` in the city. */
  minute(ms) {
    return new Date(ms + this.offsetMs).toISOString().slice(0, 16).replace("T", " ");
  }
}

function check(profile) {
  const { limits } = profile;
  const whole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;
  const sound =
    typeof profile.issuer === "string" &&
    profile.issuer.includes("://") &&
    profile.issuer.length <= 100 &&
    typeof profile.authority === "string" &&
    whole(profile.offsetMs / 3_600_000, -12, 14) &&
    whole(limits.fresh_s, 1, limits.max_age_s) &&
    whole(limits.clock_leeway_s, 0, 3600) &&
    profile.kinds.every((kind) => whole(kind.max_validity_days, 1, MAX_VALIDITY_DAYS)) &&
    new Set(profile.kinds.map((kind) => kind.code)).size === profile.kinds.length &&
    Object.values(profile.disclosure).every((fields) => fields.every((f) => SHOWABLE.includes(f))) &&
    Object.keys(profile.disclosure).every((p) => p === GENERAL || Object.hasOwn(DEPARTMENTS, p));
  if (!sound) throw badTrust("its profile breaks a rule");
}
