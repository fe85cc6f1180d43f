// Choices of this counter, kept in localStorage; none of them says anything about a permit.

const KEY = "anju-verifier-settings";
const DEFAULTS = { language: "zh", purpose: "general", resetS: 30, sound: false, keepCamera: true };

export const settings = { ...DEFAULTS };

export function recallSettings() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const [name, value] of Object.entries(DEFAULTS)) {
      if (typeof stored[name] === typeof value) settings[name] = stored[name];
    }
  } catch {
    // Storage is switched off, or somebody else wrote there: the defaults do.
  }
}

export function change(name, value) {
  settings[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // It holds until the page is closed.
  }
}
