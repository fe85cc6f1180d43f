// The verdict as people see it: a shape, a colour, a word, a sentence, and what the purpose allows.

import texts from "../texts.json";
import { h, mark, unbroken } from "./dom.js";
import { languageCode, otherWord, pick, pickOther, word } from "./words.js";

// Nothing against the permit: the symbol, this device or its trust data is at fault.
const UNCLEAR = new Set([
  "NOT_A_PERMIT",
  "MALFORMED",
  "UNSUPPORTED_CRITICAL",
  "UNSUPPORTED_ALGORITHM",
  "CLOCK_BEFORE_TRUST",
  "TRUST_TOO_OLD",
  "UNKNOWN_KEY",
  "STATUS_UNKNOWN",
  "INTERNAL",
]);
const WIDE = new Set(["residence_address", "household_address"]);
const SHORT_NAME_CHARS = 6;

/** "valid", "refused" or "unclear". */
export function kindOf(verdict) {
  if (verdict.valid) return "valid";
  return UNCLEAR.has(verdict.reason) ? "unclear" : "refused";
}

/** One breath for a screen reader. */
export function spoken(verdict) {
  const sentence = languageCode() === "en" ? verdict.message_en : verdict.message_zh;
  const stale = verdict.warnings.length ? ` ${word("trust")}: ${word("stale")}` : "";
  return `${word(kindOf(verdict))}. ${sentence}${stale}`;
}

/** The panel of a verdict. */
export function verdictPanel(verdict, photo) {
  const sentences = [verdict.message_zh, verdict.message_en];
  const kind = kindOf(verdict);
  const stamp = verdict.valid ? null : h("span", { class: "token" }, verdict.reason);
  return [
    h(
      "div",
      { class: `banner ${kind}` },
      mark(kind),
      h(
        "div",
        {},
        h("h2", { id: "headline", tabindex: "-1" }, word(kind)),
        h("p", { class: "second" }, otherWord(kind), stamp),
      ),
    ),
    h(
      "div",
      { class: "sentence" },
      h("p", {}, unbroken(pick(sentences))),
      h("p", { class: "second", lang: languageCode() === "en" ? "zh" : "en" }, unbroken(pickOther(sentences))),
    ),
    verdict.warnings.includes("TRUST_STALE")
      ? h("p", { class: "warning" }, mark("unclear"), `${word("trust")}: ${word("stale")}`)
      : null,
    verdict.valid ? fields(verdict.shown, photo) : null,
  ];
}

const isWide = (name, value) =>
  WIDE.has(name) || (name.endsWith("_name") && value.length > SHORT_NAME_CHARS);

function fields(shown, photo) {
  const rows = Object.entries(shown).map(([name, value]) => {
    const pair = texts.labels[name] ?? [name, name];
    return h(
      "div",
      { class: `field ${name} ${isWide(name, value) ? "wide" : ""}` },
      h("dt", {}, pick(pair), h("span", { class: "second" }, pickOther(pair))),
      h("dd", {}, value),
    );
  });
  return h("div", { class: photo ? "shown with-photo" : "shown" }, photo, h("dl", {}, rows));
}
