// What a checkpoint may ask of its reader (section 16): memory is bounded by what is stored.

import { CkptError } from './errors.js';

export interface Limits {
  /** Bytes of a manifest, part manifest or page. [LIM-001] [LIM-011] */
  readonly manifest: number;
  /** Bytes that one call may decode beyond 16 times what is stored. [LIM-008] */
  readonly decoded: number;
}

export const FACTOR = 16; // bytes of memory that each stored byte may take in any case

const VALUES = 40 * 2 ** 20; // bytes that the values of a document may take beyond [LIM-007]

export function checkManifest(length: number, limit: number, what: string, rule = 'LIM-001'): void {
  if (length > limit) throw new CkptError('limit-exceeded', `${what} has ${length} bytes, more than ${limit} [${rule}]`);
}

/** Memory for the values of one document of msgpack. [LIM-007] */
export class Budget {
  #left: number;

  constructor(stored: number) {
    this.#left = (FACTOR - 3) * stored + VALUES;
  }

  take(cost: number): void {
    this.#left -= cost;
    if (this.#left < 0) throw new CkptError('limit-exceeded', 'the values of the manifest take too much memory [LIM-007]');
  }
}

/** Refuse to decode so much from so little. [LIM-008] */
export function checkExpansion(decoded: number, stored: number, limits: Limits): void {
  const room = FACTOR * stored + limits.decoded;
  const what = `${stored} bytes of compressed chunks stand for ${decoded}; at most ${room}`;
  if (decoded > room) throw new CkptError('limit-exceeded', `${what} [LIM-008]`);
}

/** Bytes, all zero; `limit-exceeded` where this machine has no place for them. */
export function allocate(length: number): Uint8Array {
  try {
    return new Uint8Array(length);
  } catch (error) {
    throw new CkptError('limit-exceeded', `there is no memory for ${length} bytes`, {}, { cause: error });
  }
}
