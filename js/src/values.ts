// What stands in trees and metadata beside tensors (SPEC.md section 2), exactly: 1 and 1.0 stay apart, as do 0 and "0",
// a list and a tuple.

import type { Tensor } from './api.js';

/** A key of a dict, or a position in a list or tuple: integers are bigints. */
export type Key = string | bigint;

/** A float is a number, an int a bigint, bytes are a Uint8Array, a list is an array. */
export type Value =
  | null | boolean | bigint | number | string | Uint8Array | NaNBits | Complex | Scalar | Tensor | Dict | Tuple | Tagged
  | Value[];

/** A NaN whose sign or payload is not the usual one: engines may change such bits in a number. */
export class NaNBits {
  constructor(readonly bits: bigint) {}

  valueOf(): number {
    return NaN;
  }
}

/** A complex number; its parts are numbers, or NaNs that no number keeps. */
export class Complex {
  constructor(readonly real: number | NaNBits, readonly imaginary: number | NaNBits) {}
}

/** A scalar of a dtype. `bytes` are the storage element, little-endian. */
export class Scalar {
  constructor(readonly dtype: string, readonly bytes: Uint8Array, readonly value: number | bigint | boolean | Complex) {}
}

/** A tuple: what a list is not, though it has items as well. */
export class Tuple implements Iterable<Value> {
  constructor(readonly items: Value[]) {}

  get length(): number {
    return this.items.length;
  }

  at(position: number): Value | undefined {
    return this.items.at(position);
  }

  [Symbol.iterator](): Iterator<Value> {
    return this.items[Symbol.iterator]();
  }
}

/** A tagged value (section 13), given only where tags are asked for; else its child stands in its place. [TAG-001] */
export class Tagged {
  constructor(readonly name: string, readonly param: Value, readonly child: Value) {}
}

/**
 * A dict in its own order. As a Map, but that an int key may be given as a number (`get(0)` is `get(0n)`), and that its
 * speed does not depend on keys that a stranger chose: engines hash bigints in a way that can be foreseen. [LIM-007]
 */
export class Dict implements Iterable<[Key, Value]> {
  readonly #items = new Map<string, [Key, Value]>();

  constructor(items: Iterable<readonly [Key, Value]> = []) {
    for (const [key, value] of items) this.#items.set(textOf(key), [key, value]);
  }

  get size(): number {
    return this.#items.size;
  }

  get(key: Key | number): Value | undefined {
    return this.#items.get(textOf(key))?.[1];
  }

  has(key: Key | number): boolean {
    return this.#items.has(textOf(key));
  }

  * keys(): IterableIterator<Key> {
    for (const [key] of this.#items.values()) yield key;
  }

  * values(): IterableIterator<Value> {
    for (const [, value] of this.#items.values()) yield value;
  }

  entries(): IterableIterator<[Key, Value]> {
    return this.#items.values();
  }

  [Symbol.iterator](): IterableIterator<[Key, Value]> {
    return this.#items.values();
  }
}

/** Distinct for distinct keys: `s` and a string, `i` and an int, in hexadecimal, which is made in linear time. */
export function textOf(key: Key | number): string {
  return typeof key === 'string' ? `s${key}` : `i${BigInt(key).toString(16)}`;
}
