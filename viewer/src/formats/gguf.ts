// GGUF, versions 2 and 3, little-endian: "GGUF", u32 version, u64 tensors, u64 pairs, pairs of (string, u32 type, value),
// tensors (string name, u32 axes, u64 lengths with the fastest first, u32 type, u64 offset), padding, data.

import { Dict, type Source, type Value } from '../../../js/src/index.js';
import type { Shown } from '../shown.js';
import { count } from '../text.js';
import { type Described, check, flat, product } from './flat.js';
import { PLAIN, typeOf } from './ggml.js';

const LONGEST = 256 * 2 ** 20; // bytes of everything before the data
const PIECE = 4 * 2 ** 20;
const DEEPEST = 8; // arrays in arrays
const KEPT = 10_000; // items of an array that are kept to be looked at
const MOST = 1_000_000; // values in all

export function looksLikeGguf(head: Uint8Array): boolean {
  return head.length >= 4 && String.fromCharCode(...head.subarray(0, 4)) === 'GGUF';
}

export async function openGguf(source: Source, head: Uint8Array, size: number, signal?: AbortSignal): Promise<Shown> {
  const reader = new Reader(source, head, size, signal);
  await reader.skip(4);
  const version = await reader.u32();
  check(version === 2 || version === 3, `GGUF of version 0x${version.toString(16)}; 2 and 3, little-endian, are read`);
  const [tensors, pairs] = [await reader.length(), await reader.length()];
  const items = new Map<string, Value>();
  for (let i = 0; i < pairs; i++) {
    const key = await reader.string();
    check(!items.has(key), `the key ${JSON.stringify(key)} stands twice`);
    items.set(key, await reader.value(await reader.u32(), 0));
  }
  const found: Described[] = [];
  for (let i = 0; i < tensors; i++) found.push(await reader.tensor());
  const alignment = items.get('general.alignment') ?? 32n;
  check(typeof alignment === 'bigint' && alignment > 0n && alignment < 2n ** 31n, 'the alignment is no number above 0');
  const start = Math.ceil(reader.at / Number(alignment)) * Number(alignment);
  place(found, start, size);
  const facts: [string, string][] = [['Version', String(version)], ['Header', count(reader.at, 'byte')]];
  return flat(source, 'gguf', found, new Dict(items), facts, size);
}

/** From offsets in the data to places in the file, which must not overlap. */
function place(tensors: Described[], start: number, size: number): void {
  const names = new Set<string>();
  let end = 0;
  for (const one of [...tensors].sort((a, b) => a.offset - b.offset || a.nbytes - b.nbytes)) {
    check(!names.has(one.name), `the tensor ${one.name} stands twice`);
    names.add(one.name);
    check(one.offset >= end, `tensor ${one.name} overlaps the one before it`);
    end = one.offset + one.nbytes;
    one.offset += start;
  }
  check(tensors.length === 0 || start + end <= size, `the file ends at byte ${size}, its tensors at ${start + end}`);
}

const SCALARS: Record<number, readonly [number, (data: DataView, at: number) => Value]> = {
  0: [1, (data, at) => BigInt(data.getUint8(at))],
  1: [1, (data, at) => BigInt(data.getInt8(at))],
  2: [2, (data, at) => BigInt(data.getUint16(at, true))],
  3: [2, (data, at) => BigInt(data.getInt16(at, true))],
  4: [4, (data, at) => BigInt(data.getUint32(at, true))],
  5: [4, (data, at) => BigInt(data.getInt32(at, true))],
  6: [4, (data, at) => data.getFloat32(at, true)],
  7: [1, (data, at) => data.getUint8(at) !== 0],
  10: [8, (data, at) => data.getBigUint64(at, true)],
  11: [8, (data, at) => data.getBigInt64(at, true)],
  12: [8, (data, at) => data.getFloat64(at, true)],
};
const [STRING, ARRAY] = [8, 9];

/** Reads from front to back, in pieces, and never more than there is. */
class Reader {
  at = 0;
  #bytes: Uint8Array;
  #start = 0; // of the bytes that are there

  constructor(readonly source: Source, head: Uint8Array, readonly size: number, readonly signal: AbortSignal | undefined) {
    this.#bytes = head;
  }

  /** The next bytes, passed over. */
  async take(length: number): Promise<Uint8Array> {
    check(length <= this.size - this.at, `the file ends at byte ${this.size}, within its header`);
    check(this.at + length <= LONGEST, `a header of more than ${count(LONGEST, 'byte')}`);
    const from = this.at - this.#start;
    if (from + length > this.#bytes.length) {
      this.#bytes = await this.source.read('', this.at, Math.min(Math.max(PIECE, length), this.size - this.at), this.signal);
      this.#start = this.at;
      check(this.#bytes.length >= length, 'the file ends within its header');
    }
    const begin = this.at - this.#start;
    this.at += length;
    return this.#bytes.subarray(begin, begin + length);
  }

  async skip(length: number): Promise<void> {
    await this.take(length);
  }

  async #data(length: number): Promise<DataView> {
    const bytes = await this.take(length);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  async u32(): Promise<number> {
    return (await this.#data(4)).getUint32(0, true);
  }

  async u64(): Promise<number> {
    const value = (await this.#data(8)).getBigUint64(0, true);
    check(value <= BigInt(Number.MAX_SAFE_INTEGER), 'a number beyond 2⁵³');
    return Number(value);
  }

  /** A number of things of which each takes a byte at least. */
  async length(): Promise<number> {
    const value = await this.u64();
    check(value <= this.size - this.at, `the file ends at byte ${this.size}, before all that it announces`);
    return value;
  }

  async string(isWanted = true): Promise<string> {
    const length = await this.length();
    if (!isWanted) {
      this.at += length;
      return '';
    }
    const bytes = await this.take(length);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      check(false, 'a text is not UTF-8');
    }
  }

  async value(kind: number, depth: number): Promise<Value> {
    if (kind === STRING) return this.string();
    const scalar = SCALARS[kind];
    if (scalar) return scalar[1](await this.#data(scalar[0]), 0);
    check(kind === ARRAY, `a value of the unknown type ${kind}`);
    check(depth <= DEEPEST, 'arrays are nested too deeply');
    const [inner, length] = [await this.u32(), await this.length()];
    const row = SCALARS[inner];
    if (row) {
      const data = await this.#data(length * row[0]);
      const items = Array.from({ length: Math.min(length, KEPT) }, (_, i) => row[1](data, i * row[0]));
      return this.#kept(items, length);
    }
    if (inner === STRING) return this.#kept(await this.#texts(length), length);
    const items: Value[] = [];
    for (let i = 0; i < length; i++) {
      const item = await this.value(inner, depth + 1);
      if (i < KEPT) items.push(item);
    }
    return this.#kept(items, length);
  }

  /** The first texts of an array; the others are passed over, without a pause for each, as there are hundreds of thousands. */
  async #texts(length: number): Promise<Value[]> {
    const items: Value[] = [];
    for (let i = 0; i < length; i++) {
      const there = this.at - this.#start;
      if (i < KEPT || there + 8 > this.#bytes.length) {
        const text = await this.string(i < KEPT);
        if (i < KEPT) items.push(text);
        continue;
      }
      const size = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + there, 8).getBigUint64(0, true);
      check(size <= BigInt(this.size - this.at - 8), `the file ends at byte ${this.size}, within its header`);
      this.at += 8 + Number(size);
    }
    return items;
  }

  #values = 0;

  /** The items of an array that are kept, and how many there are. */
  #kept(items: Value[], length: number): Value[] {
    this.#values += items.length;
    check(this.#values <= MOST, `more than ${count(MOST, 'value')}`);
    if (length > items.length) items.push(`… and ${count(length - items.length, 'more item')}`);
    return items;
  }

  async tensor(): Promise<Described> {
    const name = await this.string();
    const axes = await this.u32();
    check(axes <= 4, `tensor ${name} has ${axes} axes`);
    const shape: number[] = [];
    for (let i = 0; i < axes; i++) shape.unshift(await this.u64());
    const [number, offset] = [await this.u32(), await this.u64()];
    const type = typeOf(number);
    check(type, `tensor ${name} has the unknown type ${number}`);
    const elements = product(shape);
    check(Number.isSafeInteger(elements * type.bytes), `tensor ${name} is too large`);
    check(elements === 0 || (shape.at(-1) ?? 1) % type.elements === 0, `a row of ${name} is no whole number of blocks of ${type.name}`);
    const nbytes = (elements / type.elements) * type.bytes;
    const plain = PLAIN[type.name];
    if (plain) return { name, dtype: plain, shape, offset, nbytes };
    const opaque = type.numbers ? {} : { opaque: `this page does not compute numbers of blocks of ${type.name}` };
    return { name, dtype: type.name, shape, offset, nbytes, blocks: type, ...opaque };
  }
}
