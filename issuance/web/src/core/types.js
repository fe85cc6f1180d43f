// Stages, reasons and errors; the tokens are those of issuance/types.py.

/** Bytes that are not a well-formed permit, or a permit that is refused. */
export class Refusal extends Error {
  /**
   * @param {string} stage the step that refused
   * @param {string} reason stable token
   * @param {Record<string, string>} values what fills the braces of the reason's sentence
   */
  constructor(stage, reason, values = {}) {
    super(`${stage}: ${reason}`);
    this.stage = stage;
    this.reason = reason;
    this.values = values;
  }
}

/** A trust bundle that cannot be used; `reason` is a stable token. */
export class TrustError extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

export const badTrust = (why) =>
  new TrustError("BAD_TRUST", `the trust bundle is not sound: ${why}`);
