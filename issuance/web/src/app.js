// The page: composes what listens (scanner, camera, files), what judges, and what shows.

import texts from "./texts.json";
import { MAX_TEXT_CHARS } from "./core/envelope.js";
import { latin1 } from "./core/bytes.js";
import { useNative } from "./core/crypto.js";
import { apply as applyDelta, isDelta } from "./core/delta.js";
import { forget } from "./core/memory.js";
import { load } from "./core/trust.js";
import { verify } from "./core/verifier.js";
import { Camera } from "./ui/camera.js";
import { byId, h, mark, unbroken } from "./ui/dom.js";
import { MAX_FILE_BYTES, NoReaderError, Reader, pixelsOf } from "./ui/pictures.js";
import { change, recallSettings, settings } from "./ui/settings.js";
import { play } from "./ui/sounds.js";
import { Trusting } from "./ui/trusting.js";
import { kindOf, spoken, verdictPanel } from "./ui/verdict-view.js";
import { listen } from "./ui/wedge.js";
import { languageCode, otherWord, pick, setLanguage, word } from "./ui/words.js";

const RESET_CHOICES_S = [0, 10, 20, 30, 60, 120];
// A permit left under the camera must be gone this long before it counts as shown anew.
const ABSENT_MS = 1500;
const TOAST_MS = 6000;

const reader = new Reader();
const camera = new Camera(byId("video"), reader);
const trusting = new Trusting(onTrust, confirmFingerprint);

/** The verdict on the screen with what led to it, or null. */
let shown = null;
let resetTimer = 0;
let toastTimer = 0;
let photoUrl = null;
const seen = { text: null, at: 0 };

// --- judging ---------------------------------------------------------------------------------

/** Judge one text and show the verdict; `readMs` is what finding the symbol took. */
async function judge(candidates, readMs = null) {
  if (trusting.store === null) {
    askForTrust();
    return;
  }
  const begun = performance.now();
  const now = Date.now();
  const verdicts = [];
  for (const text of candidates) {
    verdicts.push({ text, verdict: await verify(text, trusting.store, now, settings.purpose) });
  }
  // A picture may show other symbols beside the permit's.
  const { text, verdict } = verdicts.find((v) => v.verdict.reason !== "NOT_A_PERMIT") ?? verdicts[0];
  shown = { text, verdict, now, readMs, verifyMs: performance.now() - begun };
  showVerdict();
  if (settings.sound) play(kindOf(verdict));
}

function showVerdict() {
  const { verdict, readMs, verifyMs, now } = shown;
  const timing = [readMs, verifyMs].filter((ms) => ms !== null).map((ms) => `${ms.toFixed(0)} ms`);
  const purpose = pick(texts.purposes[settings.purpose]);
  const note = [
    `${word("purpose")}: ${purpose}`,
    `${word("checkedAt")} ${trusting.store.rules.minute(now)}`,
    timing.join(" + "),
    word("nothingKept"),
  ];
  const panel = byId("verdict");
  panel.replaceChildren(...verdictPanel(verdict, photoOf(verdict)).filter(Boolean), nextBar(note));
  panel.dataset.reason = verdict.reason;
  panel.dataset.stage = verdict.stage ?? "";
  document.body.dataset.state = kindOf(verdict);
  byId("spoken").textContent = spoken(verdict);
  byId("headline").focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
  armReset();
}

function photoOf(verdict) {
  if (photoUrl !== null) URL.revokeObjectURL(photoUrl);
  photoUrl = null;
  if (!verdict.photo) return null;
  photoUrl = URL.createObjectURL(new Blob([verdict.photo.data], { type: verdict.photo.mediaType }));
  return h("img", { class: "photo", src: photoUrl, alt: word("photo") });
}

function nextBar(note) {
  return h(
    "div",
    { class: "next" },
    h("p", { class: "note" }, note.map((part) => h("span", {}, part))),
    h("button", { class: "primary", type: "button", onclick: reset }, word("next"), h("kbd", {}, "Esc")),
    settings.resetS ? h("div", { class: "countdown", "aria-hidden": "true" }, h("span")) : null,
  );
}

function armReset() {
  clearTimeout(resetTimer);
  if (!settings.resetS) return;
  resetTimer = setTimeout(reset, settings.resetS * 1000);
  byId("verdict").style.setProperty("--reset", `${settings.resetS}s`);
}

function reset() {
  clearTimeout(resetTimer);
  const hadFocus = byId("verdict").contains(document.activeElement);
  shown = null;
  document.body.dataset.state = trusting.store === null ? "untrusted" : "idle";
  delete byId("verdict").dataset.reason;
  photoOf({});
  byId("spoken").textContent = "";
  showIdle();
  if (hadFocus) document.activeElement?.blur();
}

function showIdle() {
  const ways = ["wayCamera", "wayScanner", "wayFile"].map((key) => h("li", {}, word(key)));
  const trusted = trusting.store !== null;
  byId("verdict").replaceChildren(
    h(
      "div",
      { class: "idle" },
      byId("house").content.cloneNode(true),
      h("h2", {}, word(trusted ? "idle" : "needTrust")),
      h("p", { class: "second" }, otherWord(trusted ? "idle" : "needTrust")),
      h("p", {}, word(trusted ? "idleHint" : "needTrustHint")),
      trusted
        ? h("ul", { class: "ways" }, ways)
        : h("button", { class: "primary", type: "button", onclick: chooseFile }, word("loadTrust")),
      trusting.problem ? h("p", { class: "warning" }, mark("unclear"), word(trusting.problem)) : null,
    ),
  );
}

function askForTrust() {
  reset();
  toast(word("needTrust"));
}

// --- ways in ---------------------------------------------------------------------------------

async function takeFile(file) {
  if (file.size > MAX_FILE_BYTES) {
    toast(word("badFile"));
    return;
  }
  const data = new Uint8Array(await file.arrayBuffer());
  if ((data[0] === 0x50 && data[1] === 0x4b) || isDelta(data)) return takeBundle(data);
  if (/\.anju$/i.test(file.name)) return toast(word("NOT_A_BUNDLE"));
  if (/\.txt$|^text\/plain/i.test(file.type + file.name)) return judge([latin1(data)]);
  return takePicture(file);
}

async function takePicture(blob) {
  document.body.classList.add("working");
  try {
    const pixels = await pixelsOf(blob);
    const { texts: found, ms } = await reader.read(pixels, true);
    if (found.length) await judge(found, ms);
    else toast(word("noSymbol"));
  } catch (error) {
    toast(word(error instanceof NoReaderError ? "noReader" : "badFile"));
  } finally {
    document.body.classList.remove("working");
  }
}

async function takeBundle(data) {
  try {
    const news = await trusting.offer(data, "sourceFile");
    if (trusting.store !== null) toast(word(news ? "trustLoaded" : "trustSame"));
  } catch (error) {
    toast(word(error.reason ?? "BAD_TRUST"), true);
  }
}

function chooseFile() {
  byId("file").click();
}

async function startCamera(deviceId) {
  const frame = byId("viewfinder");
  if (!navigator.mediaDevices?.getUserMedia) return say(word("cameraInsecure"));
  say(word("starting"));
  frame.dataset.camera = "starting";
  try {
    await camera.start(onFrame, deviceId);
    say(word("aim"));
  } catch (error) {
    camera.stop();
    say(word(error?.name === "NotFoundError" ? "cameraNone" : "cameraDenied"));
  }
  showCamera();
}

function stopCamera() {
  camera.stop();
  seen.text = null;
  showCamera();
  say("");
}

function onFrame(found, ms) {
  if (found === null) {
    showCamera();
    say(word("noReader"));
    return;
  }
  const now = performance.now();
  if (found.length === 0) {
    if (seen.text !== null && now - seen.at > ABSENT_MS) seen.text = null;
    return;
  }
  const known = found.includes(seen.text);
  seen.at = now;
  if (known) return;
  seen.text = found[0];
  if (!settings.keepCamera) stopCamera();
  judge(found, ms);
}

function say(text) {
  byId("hint").textContent = text;
}

function showCamera() {
  byId("viewfinder").dataset.camera = camera.running ? "on" : "off";
  byId("camera").replaceChildren(word(camera.running ? "cameraOff" : "cameraOn"));
  byId("camera").setAttribute("aria-pressed", String(camera.running));
  byId("switch").hidden = !camera.running || !camera.several;
  byId("light").hidden = !camera.running || !camera.hasLight;
}

// --- trust -----------------------------------------------------------------------------------

function onTrust() {
  showTrust();
  showPurposes();
  byId("authority").textContent = trusting.store?.rules.authority ?? "";
  if (shown === null) reset();
}

function trustState() {
  const { store } = trusting;
  if (store === null) return { kind: "refused", text: word(trusting.problem ?? "unanchored") };
  const now = Date.now();
  if (!store.clockIsPlausible(now)) return { kind: "refused", text: word("clockWrong") };
  const { freshness } = store.age(now);
  const kind = { fresh: "valid", stale: "unclear", "too-old": "refused" }[freshness];
  const text = word({ fresh: "fresh", stale: "stale", "too-old": "tooOld" }[freshness]);
  return { kind, text: `${text} · ${word("published")} ${store.rules.minute(store.publishedAt)}` };
}

function showTrust() {
  const { store } = trusting;
  const { kind, text } = trustState();
  const problem = store !== null && trusting.problem;
  byId("trust-state").replaceChildren(
    mark(problem ? "unclear" : kind),
    h("span", {}, h("b", {}, word("trust")), " ", unbroken(problem ? word(trusting.problem) : text)),
  );
  byId("trust-state").dataset.freshness = kind;
  // In the city's time zone, as all other times here: they are meant to be compared.
  byId("clock").textContent = store ? `${word("internalClock")} ${store.rules.minute(Date.now())}` : "";
}

function showPurposes() {
  const known = Object.keys(trusting.store?.rules.disclosure ?? texts.purposes);
  if (!known.includes(settings.purpose)) change("purpose", "general");
  const options = Object.keys(texts.purposes)
    .filter((name) => known.includes(name))
    .map((name) => h("option", { value: name, selected: name === settings.purpose }, pick(texts.purposes[name])));
  byId("purpose").replaceChildren(...options);
}

const grouped = (fingerprint) => fingerprint.match(/.{4}/g).map((group) => h("span", {}, group));

function confirmFingerprint(fingerprint, store) {
  const dialog = byId("compare");
  return new Promise((resolve) => {
    dialog.replaceChildren(
      h("h2", {}, word("compareTitle")),
      h("p", {}, `${word("authority")}: `, h("b", {}, store.rules.authority)),
      h("p", {}, word("compareHint")),
      h("p", { class: "fingerprint" }, grouped(fingerprint)),
      h(
        "form",
        { method: "dialog", class: "row" },
        h("button", { value: "different", autofocus: true }, word("different")),
        h("button", { class: "primary", value: "same" }, word("same")),
      ),
    );
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "same"), { once: true });
    dialog.showModal();
  });
}

function openTrust() {
  const { store } = trusting;
  const rows = store && {
    authority: store.rules.authority,
    issuer: store.rules.issuer,
    published: store.rules.minute(store.publishedAt),
    usableUntil: store.rules.minute(store.expiresAt),
    version: store.version,
    keys: store.keys.size,
    lists: store.lists.size,
    source: word(trusting.source),
  };
  const loading = h("button", { class: "primary", type: "button", onclick: chooseFile }, word("loadTrust"));
  const content = [
    h("h2", {}, word("trust")),
    trusting.remembers ? null : h("p", { class: "warning" }, mark("unclear"), word("notRemembered")),
    trusting.problem ? h("p", { class: "warning" }, mark("unclear"), word(trusting.problem)) : null,
    store
      ? h("dl", { class: "rows" }, Object.entries(rows).map(([key, value]) => h("div", {}, h("dt", {}, word(key)), h("dd", {}, String(value)))))
      : h("p", {}, word("needTrustHint")),
    store && h("p", {}, word("fingerprint")),
    store && h("p", { class: "fingerprint" }, grouped(store.rootFingerprint)),
  ];
  openDialog("trust-dialog", content, loading);
}

// --- settings, words, dialogs ------------------------------------------------------------------

function openDialog(id, children, ...buttons) {
  const dialog = byId(id);
  const close = h("button", { class: "close", autofocus: true }, word("close"));
  dialog.replaceChildren(
    ...children.filter(Boolean),
    h("form", { method: "dialog", class: "row end" }, buttons, close),
  );
  if (!dialog.open) dialog.showModal();
}

function openSettings() {
  const toggle = (name) => {
    const box = h("input", { type: "checkbox", checked: settings[name], onchange: () => change(name, box.checked) });
    return h("label", { class: "setting" }, h("span", {}, word(name)), box);
  };
  const choice = h(
    "select",
    { onchange: () => change("resetS", Number(choice.value)) },
    RESET_CHOICES_S.map((s) =>
      h("option", { value: s, selected: s === settings.resetS }, s ? `${s} ${word("seconds")}` : word("never")),
    ),
  );
  const content = [
    h("h2", {}, word("settings")),
    h("label", { class: "setting" }, h("span", {}, word("autoReset")), choice),
    toggle("sound"),
    toggle("keepCamera"),
  ];
  openDialog(
    "settings-dialog",
    content,
    h("button", { type: "button", class: "danger", onclick: forgetTrust }, word("forget")),
    h("button", { type: "button", onclick: openLicences }, word("licences")),
  );
}

function openLicences() {
  openDialog("licences-dialog", [
    h("h2", {}, word("licences")),
    h("pre", { tabindex: "0" }, byId("licences").textContent.trim()),
  ]);
}

function forgetTrust() {
  const dialog = byId("forget-dialog");
  dialog.replaceChildren(
    h("p", {}, word("forgetSure")),
    h(
      "form",
      { method: "dialog", class: "row" },
      h("button", { autofocus: true }, word("cancel")),
      h("button", { class: "danger", value: "yes" }, word("forget")),
    ),
  );
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    await forget().catch(() => {});
    location.reload();
  };
  dialog.showModal();
}

function toast(text, bad = false) {
  clearTimeout(toastTimer);
  byId("toast").textContent = text;
  byId("toast").hidden = false;
  byId("toast").classList.toggle("bad", bad);
  toastTimer = setTimeout(() => {
    byId("toast").hidden = true;
  }, TOAST_MS);
}

function showWords() {
  setLanguage(settings.language);
  document.documentElement.lang = languageCode() === "en" ? "en" : "zh-CN";
  document.title = `${word("title")} · 安居 anju`;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = word(element.dataset.word);
  }
  for (const element of document.querySelectorAll("[data-other-word]")) {
    element.textContent = otherWord(element.dataset.otherWord);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", word(element.dataset.label));
    element.title = word(element.dataset.label);
  }
  byId("language").textContent = settings.language === "en" ? "中文" : "English";
  byId("language").lang = settings.language === "en" ? "zh" : "en";
  showCamera();
  if (camera.running) say(word("aim"));
  onTrust();
  if (shown !== null) showVerdict();
}

// --- wiring ----------------------------------------------------------------------------------

function wire() {
  listen({
    maxChars: MAX_TEXT_CHARS + 5,
    onText: (text) => judge([text]),
    onBurst: (on) => {
      document.body.classList.toggle("scanning", on);
      byId("wedge").textContent = word(on ? "wedgeBusy" : "wedgeReady");
    },
    onInputMethod: () => toast(word("inputMethod")),
  });
  byId("camera").onclick = () => (camera.running ? stopCamera() : startCamera());
  byId("switch").onclick = () => startCamera(camera.nextDevice());
  byId("light").onclick = ({ currentTarget }) => {
    const on = currentTarget.getAttribute("aria-pressed") !== "true";
    currentTarget.setAttribute("aria-pressed", String(on));
    camera.light(on);
  };
  byId("choose").onclick = chooseFile;
  byId("file").onchange = async ({ target }) => {
    const [file] = target.files;
    // Emptied at once, or choosing the same file again would change nothing.
    target.value = "";
    byId("trust-dialog").close();
    if (file) await takeFile(file);
  };
  byId("purpose").onchange = ({ target }) => {
    change("purpose", target.value);
    if (shown !== null) judge([shown.text], shown.readMs);
  };
  byId("language").onclick = () => {
    change("language", settings.language === "en" ? "zh" : "en");
    showWords();
  };
  byId("settings").onclick = openSettings;
  byId("trust").onclick = openTrust;
  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown !== null && !document.querySelector("dialog[open]")) reset();
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) takeFile(file);
  });
  window.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    const text = event.clipboardData.getData("text/plain");
    if (file) takeFile(file);
    else if (text) judge([text]);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && camera.running) stopCamera();
  });
}

async function keepForOffline() {
  if (!("serviceWorker" in navigator) || !location.protocol.startsWith("http")) return;
  const updating = navigator.serviceWorker.controller !== null;
  navigator.serviceWorker.addEventListener("controllerchange", () => updating && toast(word("newPage")));
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    document.body.dataset.offline = "ready";
    await navigator.storage?.persist?.();
  } catch {
    // Without the worker beside it the page still works; only not without its server.
  }
}

/** For tests and for programs of a department: judge without touching what the page shows. */
globalThis.anju = Object.freeze({
  useNative,
  applyDelta,
  async open(bundle, memory = null) {
    const store = await load(bundle, memory);
    return {
      memory: store.memory,
      judge: (text, now, purpose, floor = null) =>
        verify(text, floor === null ? store : store.withFloor(floor), now, purpose),
    };
  },
});

recallSettings();
wire();
showWords();
await trusting.start();
setInterval(showTrust, 20_000);
reader.start().catch(() => say(word("noReader")));
document.body.dataset.started = "";
keepForOffline();
