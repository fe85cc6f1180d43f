// What this device remembers between visits, in the browser's IndexedDB; the ideas are memory.py's.
//
// Root, time floor and newest versions are stored with the bundle they came from, in one
// transaction. A second window may have loaded a newer bundle meanwhile, so a save names the memory
// it was judged against and is refused when that is no longer what is stored.

import { TrustError } from "./types.js";

const DATABASE = "anju-verifier";
const STORE = "state";

/** What is remembered: `{memory, bundle}`, both null on first use. Throws `TrustError` BAD_STATE. */
export async function recall() {
  const [memory, bundle] = await within("readonly", (store) => [store.get("memory"), store.get("bundle")]);
  if (memory !== undefined && !isMemory(memory)) {
    throw new TrustError("BAD_STATE", "what this device remembers is unreadable");
  }
  return { memory: memory ?? null, bundle: bundle ?? null };
}

/** Replace what is remembered. Returns false, and changes nothing, if it is not `before` any more. */
export async function remember(before, memory, bundle) {
  let saved = false;
  await within("readwrite", (store) => {
    const current = store.get("memory");
    current.onsuccess = () => {
      if (JSON.stringify(current.result ?? null) !== JSON.stringify(before)) return;
      store.put(memory, "memory");
      store.put(bundle, "bundle");
      saved = true;
    };
    return [current];
  });
  return saved;
}

/** Forget everything: the next bundle is a first use, and its fingerprint must be compared anew. */
export const forget = () => within("readwrite", (store) => [store.clear()]);

function isMemory(memory) {
  const whole = (value) => Number.isSafeInteger(value) && value >= 1;
  return (
    whole(memory?.rootVersion) &&
    /^[0-9a-f]{64}$/.test(memory.rootSha256) &&
    Number.isFinite(memory.floor) &&
    memory.versions !== null &&
    typeof memory.versions === "object" &&
    Object.values(memory.versions).every(whole)
  );
}

function within(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error);
    opening.onblocked = () => reject(new Error("blocked"));
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction(STORE, mode, { durability: "strict" });
      const requests = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => {
        database.close();
        resolve(requests.map((request) => request.result));
      };
      transaction.onabort = () => {
        database.close();
        reject(transaction.error ?? new Error("aborted"));
      };
    };
  });
}
