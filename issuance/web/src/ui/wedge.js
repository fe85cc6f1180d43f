// A keyboard-wedge scanner types the symbol's text like a very fast typist, and often ends with Enter.
//
// It is listened to on the whole window and in no input field: no click is needed before a scan, and
// where no field has the focus an input method for Chinese stays out of the way. Keys of a burst are
// kept from the page, or a base45 space would press the focused button and Enter follow a link.

const GAP_MS = 120; // slow wireless scanners pause up to 50 ms between keys; people rarely type faster
const SILENCE_MS = 500; // a scanner without Enter has finished when it has been silent this long
const MIN_CHARS = 20;
const BURST_CHARS = 3;

/**
 * Call `onText` with every scanned text, `onBurst(true | false)` while one comes in, and
 * `onInputMethod` when an input method swallows keys.
 */
export function listen({ onText, onBurst, onInputMethod, maxChars }) {
  let text = "";
  let last = 0;
  let timer = 0;
  let composing = 0;

  const isBurst = () => text.length >= BURST_CHARS;

  const finish = () => {
    clearTimeout(timer);
    const scanned = text;
    if (isBurst()) onBurst(false);
    text = "";
    if (scanned.length >= MIN_CHARS) onText(scanned);
  };

  window.addEventListener(
    "keydown",
    (event) => {
      if (event.isComposing || event.key === "Process") {
        composing += 1;
        if (composing === BURST_CHARS) onInputMethod();
        return;
      }
      composing = 0;
      if (event.ctrlKey || event.metaKey || (event.altKey && event.key.length !== 1)) return;
      const now = event.timeStamp;
      if (now - last > GAP_MS && text.length < MIN_CHARS) {
        text = "";
      }
      if (event.key === "Enter" || event.key === "Tab") {
        if (!isBurst()) return;
        swallow(event);
        finish();
        return;
      }
      if (event.key.length !== 1) return;
      last = now;
      // Base45 has no small letters: with Caps Lock on, a scanner's Shift makes them.
      const capsLock = event.getModifierState("CapsLock");
      if (text.length <= maxChars) text += capsLock ? event.key.toUpperCase() : event.key;
      if (!isBurst()) return;
      swallow(event);
      if (text.length === BURST_CHARS) onBurst(true);
      clearTimeout(timer);
      timer = setTimeout(finish, SILENCE_MS);
    },
    true,
  );
  // A button acts on the release of the space bar.
  window.addEventListener("keyup", (event) => isBurst() && event.key === " " && swallow(event), true);
}

function swallow(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}
