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
  readonly #keys: Key[] = [];
  readonly #values: Value[] = [];
  #strings: Map<string, number> | undefined; // where each key stands
  #ints: Map<string, number> | undefined; // in hexadecimal, which is made in linear time

  constructor(items: Iterable<readonly [Key, Value]> = []) {
    for (const [key, value] of items) this.add(key, value);
  }

  /** @internal Whether the key is a new one. */
  add(key: Key, value: Value): boolean {
    const places = typeof key === 'string' ? this.#strings ??= new Map() : this.#ints ??= new Map();
    const text = typeof key === 'string' ? key : key.toString(16);
    if (places.has(text)) return false;
    places.set(text, this.#keys.length);
    this.#keys.push(key);
    this.#values.push(value);
    return true;
  }

  get size(): number {
    return this.#keys.length;
  }

  get(key: Key | number): Value | undefined {
    const at = this.#at(key);
    return at === undefined ? undefined : this.#values[at];
  }

  has(key: Key | number): boolean {
    return this.#at(key) !== undefined;
  }

  keys(): IterableIterator<Key> {
    return this.#keys.values();
  }

  values(): IterableIterator<Value> {
    return this.#values.values();
  }

  * entries(): IterableIterator<[Key, Value]> {
    for (let i = 0; i < this.#keys.length; i++) yield [this.#keys[i]!, this.#values[i]!];
  }

  [Symbol.iterator](): IterableIterator<[Key, Value]> {
    return this.entries();
  }

  #at(key: Key | number): number | undefined {
    if (typeof key === 'string') return this.#strings?.get(key);
    return typeof key === 'bigint' || Number.isInteger(key) ? this.#ints?.get(BigInt(key).toString(16)) : undefined;
  }
}
