// Permit numbers: letter, twelve digits, two check digits of ISO/IEC 7064 MOD 97-10.

/** Whether `number` is canonical and its check digits are right. */
export function isValid(number) {
  if (!/^[A-Z][0-9]{14}$/.test(number)) return false;
  const digits = Array.from(number.slice(0, -2), (c) => Number.parseInt(c, 36)).join("");
  const check = 98n - ((BigInt(digits) * 100n) % 97n);
  return String(check).padStart(2, "0") === number.slice(-2);
}

/** Grouped for people: `T4821 0937 5516 39`. */
export const display = (number) =>
  [number.slice(0, 5), number.slice(5, 9), number.slice(9, 13), number.slice(13)].join(" ");
