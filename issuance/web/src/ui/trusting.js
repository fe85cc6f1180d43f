// Getting, checking and keeping trust data.
//
// It comes from what this device kept, from the server the page came from, from inside the page, or
// from a file. The first three need no question: whoever could forge them could have forged the
// page. A first bundle from a file does: its fingerprint is compared by a person.

import { MAX_BUNDLE_BYTES } from "../core/bundle.js";
import { fromBase64 } from "../core/bytes.js";
import * as delta from "../core/delta.js";
import { recall, remember } from "../core/memory.js";
import { load } from "../core/trust.js";
import { TrustError } from "../core/types.js";

const NAMES = ["trust.anju", "bundle.anju"];
const REFRESH_MS = 15 * 60_000;
const FETCH_TIMEOUT_MS = 20_000;

export class Trusting {
  store = null;
  source = null;
  /** Reason token of the last failure, for display; null if all is well. */
  problem = null;
  /** False where the browser keeps nothing. */
  remembers = true;
  #memory = null;
  #bundle = null;
  #onChange;
  #confirm;
  #turn = Promise.resolve();

  /** `confirm(fingerprint, store)` resolves to whether a person found it to be right. */
  constructor(onChange, confirm) {
    this.#onChange = onChange;
    this.#confirm = confirm;
  }

  async start() {
    let kept = { memory: null, bundle: null };
    try {
      kept = await recall();
    } catch (error) {
      if (error instanceof TrustError) {
        this.#fail(error.reason);
        return;
      }
      this.remembers = false;
    }
    this.#memory = kept.memory;
    if (kept.bundle !== null) await this.offer(kept.bundle, "sourceMemory").catch(() => {});
    const carried = document.getElementById("carried-trust").textContent.trim();
    if (carried) await this.#offerQuietly(fromBase64(carried), "sourceCarried");
    await this.refresh();
    setInterval(() => this.refresh(), REFRESH_MS);
    window.addEventListener("online", () => this.refresh());
    this.#onChange();
  }

  /** Ask the page's own server for newer trust data; silent where there is none. */
  async refresh() {
    if (!location.protocol.startsWith("http")) return;
    for (const name of NAMES) {
      const data = await fetched(new URL(name, location.href));
      if (data !== null) {
        await this.#offerQuietly(data, "sourceServer");
        return;
      }
    }
  }

  /** An older bundle inside the page or on the server is no news once a newer one is known. */
  async #offerQuietly(data, source) {
    try {
      await this.offer(data, source);
    } catch (error) {
      if (error.reason === "ROLLBACK" && this.store !== null) return;
      this.#fail(error.reason ?? "BAD_TRUST");
    }
  }

  /**
   * Check a bundle, or a delta to the one in use, and use it; resolves to whether anything changed.
   *
   * Rejects with `TrustError`, and leaves what is in use as it is. One offer at a time.
   */
  offer(data, source) {
    const done = this.#turn.then(() => this.#offer(data, source));
    this.#turn = done.catch(() => {});
    return done;
  }

  async #offer(data, source) {
    for (;;) {
      const before = this.#memory;
      const bundle = delta.isDelta(data) ? await this.#changed(data) : data;
      const store = await load(bundle, before);
      if (before === null && source === "sourceFile") {
        if (!(await this.#confirm(store.rootFingerprint, store))) return false;
      }
      if (await this.#keep(before, store.memory, bundle)) {
        const news = store.version !== this.store?.version || this.problem !== null;
        this.#memory = store.memory;
        this.#bundle = bundle;
        this.store = store;
        this.problem = null;
        if (news) this.source = source;
        this.#onChange();
        return news;
      }
      this.#memory = (await recall()).memory;
    }
  }

  #changed(data) {
    if (this.#bundle === null) throw new TrustError("DELTA_UNFIT", "there is no bundle to change");
    return delta.apply(this.#bundle, data);
  }

  async #keep(before, memory, data) {
    if (!this.remembers) return true;
    try {
      return await remember(before, memory, data);
    } catch {
      // Refusing to verify would hurt the person at the counter more than forgetting does.
      this.remembers = false;
      return true;
    }
  }

  #fail(reason) {
    this.problem = reason;
    this.#onChange();
  }
}

/** At most `MAX_BUNDLE_BYTES` from `url`, or null. */
async function fetched(url) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), FETCH_TIMEOUT_MS);
  try {
    const answer = await fetch(url, {
      cache: "no-cache",
      credentials: "same-origin",
      redirect: "error",
      signal: stop.signal,
    });
    if (!answer.ok) return null;
    const parts = [];
    let total = 0;
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      total += value.length;
      if (total > MAX_BUNDLE_BYTES) {
        await reader.cancel();
        return null;
      }
      parts.push(value);
    }
    const data = new Uint8Array(await new Blob(parts).arrayBuffer());
    // A server's friendly page for what it does not have is no bundle, and no alarm either.
    return data[0] === 0x50 && data[1] === 0x4b ? data : null;
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}
