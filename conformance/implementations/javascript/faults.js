// How the reader refuses (SPEC.md section 16).

/** A refusal with a `code` of the registry; `where` holds tensor, chunk, block, offset and object as they apply. */
export class Fault extends Error {
  constructor(code, message, where = {}) {
    super(`${code}: ${message}`);
    Object.assign(this, { code, where });
  }
}

/** The checkpoint may be whole, but this reader lacks something: a `feature` such as `codec:blosc`. */
export class Unsupported extends Error {
  constructor(feature) {
    super(`this reader lacks ${feature}`);
    this.feature = feature;
  }
}

/** Refuse, quoting the statement `rule`, unless something holds. */
export function need(holds, rule, what, code = 'bad-manifest') {
  if (!holds) throw new Fault(code, `${what} [${rule}]`);
}
