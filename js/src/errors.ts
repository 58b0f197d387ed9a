// How the reader refuses (SPEC.md section 16).

/** The codes of SPEC.md section 16 that a reader gives. */
export type Code =
  | 'not-found' | 'not-a-checkpoint' | 'temporary' | 'truncated'
  | 'permission' | 'io' | 'bad-record' | 'newer-format' | 'older-format'
  | 'manifest-digest' | 'bad-manifest' | 'bad-extent' | 'unknown-feature' | 'unknown-dtype' | 'unknown-codec'
  | 'unknown-digest' | 'limit-exceeded'
  | 'missing-object' | 'short-object' | 'linked-object' | 'block-digest' | 'bad-chunk' | 'frame-digest'
  | 'no-such-path' | 'ambiguous-path' | 'bad-index' | 'missing-base' | 'wrong-base';

/** Where a fault lies, as far as it lies in one place. */
export interface Place {
  /** Label of the tensor's path. [BLK-009] */
  tensor?: string;
  /** Number of the chunk in C order of the grid. */
  chunk?: number;
  /** Number of the block in the chunk. */
  block?: number;
  /** First byte in the object. */
  offset?: number;
  /** Path of the object in the checkpoint; '' is the file itself. */
  object?: string;
  /** How the base of a patch is called where the fault, and the tensor, lie in that. [PATCH-007] */
  base?: string;
}

/** Every refusal of this package: a stable `code`, the `place`, and a message that says what was found. */
export class CkptError extends Error {
  override readonly name = 'CkptError';
  readonly code: Code;
  readonly place: Place;

  constructor(code: Code, message: string, place: Place = {}, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
    this.place = place;
  }

  /** The message without the code. */
  get what(): string {
    return this.message.slice(this.code.length + 2);
  }

  /** The same, in the base of a patch that is called so. */
  inBase(base: string): CkptError {
    if (this.place.base !== undefined) return this;
    return new CkptError(this.code, `in the base ${base}: ${this.what}`, { ...this.place, base }, { cause: this.cause });
  }
}

/** Do something with the base of a patch: its errors say that they are of that. [PATCH-007] */
export async function inBase<T>(base: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw error instanceof CkptError ? error.inBase(base) : error;
  }
}

/** Refuse, quoting the statement `rule`, unless something holds. */
export function need(holds: unknown, rule: string, what: string, code: Code = 'bad-manifest'): asserts holds {
  if (!holds) throw new CkptError(code, `${what} [${rule}]`);
}
