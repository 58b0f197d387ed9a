// A strict msgpack decoder. A checkpoint tells 1 from 1.0, keeps all bits of a NaN, and has no repeated keys and no
// invalid UTF-8; decoders made for JSON-like data keep none of this.

import { view } from './bytes.js';
import { CkptError, need } from './errors.js';
import { Budget } from './limits.js';
import { NaNBits } from './values.js';

/** A float: what is decoded as a number is an integer. */
export class Float {
  constructor(readonly value: number | NaNBits) {}
}

/** An integer is a number if that is exact, else a bigint. */
export type Item = null | boolean | number | bigint | Float | string | Uint8Array | Item[] | ItemMap;
export type ItemMap = Map<string, Item>;

const DEPTH = 1024; // of arrays and maps [LIM-005]; the deepest tree takes about 520
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const UTF8_OUT = new TextEncoder();
const USUAL_NAN = 0x7ff8000000000000n;
const LATIN1 = new TextDecoder('latin1'); // exact for ASCII
const LONGEST = 2 ** 28; // bytes that are decoded at one go: strings are slices of that, which is far faster

// bytes of memory that values take, from above, in V8
const ARRAY = 64, MAP = 256, ENTRY = 48, POINTER = 8, TEXT = 32, BYTES = 160, NUMBER = 40;

/** The one value in `bytes` [MAN-001]. Throws CkptError `bad-manifest`, or `limit-exceeded` if it takes too much memory. */
export function decode(bytes: Uint8Array): Item {
  return new Decoder(bytes).whole();
}

/** The value of a key in the map in `bytes`, whatever else breaks the rules on keys and types; undefined if it has none. */
export function lookUp(bytes: Uint8Array, key: string): Item | undefined {
  return new Decoder(bytes).lookUp(key);
}

class Decoder {
  #at = 0;
  #text: string | undefined;
  readonly #data: DataView;
  readonly #budget: Budget;

  constructor(readonly bytes: Uint8Array) {
    this.#data = view(bytes);
    this.#budget = new Budget(bytes.length);
  }

  whole(): Item {
    const item = this.#item(0);
    need(this.#at === this.bytes.length, 'MAN-001', 'there are bytes after the msgpack');
    return item;
  }

  lookUp(key: string): Item | undefined {
    const tag = this.#uint(1);
    const isMap = (tag & 0xf0) === 0x80 || tag === 0xde || tag === 0xdf;
    const size = !isMap ? 0 : tag < 0xde ? tag & 0x0f : this.#uint(tag === 0xde ? 2 : 4);
    let found: Item | undefined;
    for (let i = 0; i < size; i++) {
      const isWanted = this.#isText(this.bytes[this.#at]) && this.#item(1) === key;
      if (isWanted) found = this.#item(1);
      else this.#skip(1);
    }
    return found;
  }

  /** Whether an item that begins so is a string; if it is not, it is skipped. */
  #isText(tag: number | undefined): boolean {
    const isText = tag !== undefined && ((tag >= 0xa0 && tag < 0xc0) || (tag >= 0xd9 && tag <= 0xdb));
    if (!isText) this.#skip(1);
    return isText;
  }

  /** Pass an item over; nothing is made of it. */
  #skip(depth: number): void {
    const tag = this.#uint(1);
    let items = 0;
    if (tag < 0x80 || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) return;
    if (tag < 0x90) items = 2 * (tag & 0x0f);
    else if (tag < 0xa0) items = tag & 0x0f;
    else if (tag < 0xc0) this.#take(tag & 0x1f);
    else if (tag >= 0xdc) items = (tag < 0xde ? 1 : 2) * this.#uint(tag % 2 === 0 ? 2 : 4);
    else if (tag >= 0xd9) this.#take(this.#uint(1 << (tag - 0xd9)));
    else if (tag >= 0xd4) this.#take(1 + (1 << (tag - 0xd4)));
    else if (tag >= 0xcc) this.#take(1 << (tag & 3));
    else if (tag >= 0xca) this.#take(tag === 0xca ? 4 : 8);
    else if (tag >= 0xc7) this.#take(1 + this.#uint(1 << (tag - 0xc7)));
    else if (tag >= 0xc4) this.#take(this.#uint(1 << (tag - 0xc4)));
    else throw unknown(tag);
    if (depth >= DEPTH && (tag < 0xa0 || tag >= 0xdc)) throw early();
    for (let i = 0; i < items; i++) this.#skip(depth + 1);
  }

  #take(size: number): number {
    const at = this.#at;
    if (size > this.bytes.length - at) throw early(); // before anything is allocated [LIM-003]
    this.#at = at + size;
    return at;
  }

  #uint(size: number): number {
    const at = this.#take(size);
    return size === 1 ? this.#data.getUint8(at) : size === 2 ? this.#data.getUint16(at) : this.#data.getUint32(at);
  }

  #bin(size: number): Uint8Array {
    const at = this.#take(size);
    this.#budget.take(BYTES);
    return this.bytes.subarray(at, at + size);
  }

  #str(size: number): string {
    const at = this.#take(size);
    const end = at + size;
    this.#budget.take(TEXT + 2 * size);
    let ascii = at;
    while (ascii < end && this.bytes[ascii]! < 0x80) ascii++;
    if (ascii === end && this.bytes.length < LONGEST) return (this.#text ??= LATIN1.decode(this.bytes)).slice(at, end);
    try {
      return UTF8.decode(this.bytes.subarray(at, end));
    } catch {
      throw new CkptError('bad-manifest', 'a string is no valid UTF-8 [TREE-015]');
    }
  }

  #array(size: number, depth: number): Item[] {
    if (size > this.bytes.length - this.#at || depth >= DEPTH) throw early();
    this.#budget.take(ARRAY + POINTER * size);
    const items = new Array<Item>(size); // no larger than it has to be
    for (let i = 0; i < size; i++) items[i] = this.#item(depth + 1);
    return items;
  }

  #map(size: number, depth: number): ItemMap {
    if (2 * size > this.bytes.length - this.#at || depth >= DEPTH) throw early();
    this.#budget.take(MAP + ENTRY * size);
    const entries: ItemMap = new Map();
    for (let i = 0; i < size; i++) {
      const key = this.#item(depth + 1);
      need(typeof key === 'string', 'MAN-001', 'a map has a key that is no string');
      if (entries.has(key)) throw new CkptError('bad-manifest', `a map repeats the key ${key.slice(0, 100)} [MAN-001]`);
      entries.set(key, this.#item(depth + 1));
    }
    return entries;
  }

  #float64(): Float {
    this.#budget.take(NUMBER);
    const at = this.#take(8);
    const value = this.#data.getFloat64(at);
    if (!Number.isNaN(value)) return new Float(value);
    return new Float(nan(this.#data.getBigUint64(at)));
  }

  #float32(): Float {
    this.#budget.take(NUMBER);
    const at = this.#take(4);
    const value = this.#data.getFloat32(at);
    if (!Number.isNaN(value)) return new Float(value);
    const bits = BigInt(this.#data.getUint32(at)); // sign and payload are kept, and it is quiet [MAN-010]
    return new Float(nan(((bits >> 31n) << 63n) | USUAL_NAN | ((bits & 0x7fffffn) << 29n)));
  }

  #long(value: bigint): number | bigint {
    this.#budget.take(NUMBER);
    return value >= -(2n ** 53n) && value <= 2n ** 53n ? Number(value) : value;
  }

  #item(depth: number): Item {
    const tag = this.#uint(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#map(tag & 0x0f, depth);
    if (tag < 0xa0) return this.#array(tag & 0x0f, depth);
    if (tag < 0xc0) return this.#str(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.#bin(this.#uint(1 << (tag - 0xc4)));
      case 0xca: return this.#float32();
      case 0xcb: return this.#float64();
      case 0xcc: case 0xcd: case 0xce: return this.#uint(1 << (tag - 0xcc));
      case 0xcf: return this.#long(this.#data.getBigUint64(this.#take(8)));
      case 0xd0: return this.#data.getInt8(this.#take(1));
      case 0xd1: return this.#data.getInt16(this.#take(2));
      case 0xd2: return this.#data.getInt32(this.#take(4));
      case 0xd3: return this.#long(this.#data.getBigInt64(this.#take(8)));
      case 0xc7: case 0xc8: case 0xc9: case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        throw new CkptError('bad-manifest', 'an extension type [MAN-001]');
      case 0xd9: case 0xda: case 0xdb: return this.#str(this.#uint(1 << (tag - 0xd9)));
      case 0xdc: case 0xdd: return this.#array(this.#uint(tag === 0xdc ? 2 : 4), depth);
      case 0xde: case 0xdf: return this.#map(this.#uint(tag === 0xde ? 2 : 4), depth);
      default: throw unknown(tag);
    }
  }
}

function early(): CkptError {
  return new CkptError('bad-manifest', 'msgpack is nested too deeply, or ends too early [MAN-001]');
}

function unknown(tag: number): CkptError {
  return new CkptError('bad-manifest', `the byte 0x${tag.toString(16)} is no msgpack [MAN-001]`);
}

function nan(bits: bigint): number | NaNBits {
  return bits === USUAL_NAN ? NaN : new NaNBits(bits);
}

/** Writes the msgpack of strings, integers and arrays of them in its shortest form: what a fingerprint takes [SCH-002]. */
export class Encoder {
  #out = new Uint8Array(4096);
  #size = 0;

  bytes(): Uint8Array {
    return this.#out.subarray(0, this.#size);
  }

  array(size: number): void {
    this.#head(size, 16, 0x90, 0xda, 2);
  }

  str(text: string): void {
    const bytes = UTF8_OUT.encode(text);
    this.#head(bytes.length, 32, 0xa0, 0xd8, 1);
    this.#room(bytes.length);
    this.#out.set(bytes, this.#size);
    this.#size += bytes.length;
  }

  uint(value: number | bigint): void {
    this.#head(value, 128, 0, 0xcb, 1);
  }

  /** A size below `short` within the tag, a larger one after the tag that stands `log2(bytes of it) + 1` after `long`. */
  #head(size: number | bigint, short: number, tag: number, long: number, least: number): void {
    this.#room(9);
    if (size < short) {
      this.#out[this.#size++] = tag + Number(size);
      return;
    }
    const width = [1, 2, 4, 8].find((bytes) => bytes >= least && size < 2 ** (8 * bytes))!;
    this.#out[this.#size++] = long + Math.log2(width) + 1;
    view(this.#out).setBigUint64(this.#size, BigInt(size) << BigInt(64 - 8 * width));
    this.#size += width;
  }

  #room(size: number): void {
    if (this.#size + size <= this.#out.length) return;
    const out = new Uint8Array(2 * (this.#size + size));
    out.set(this.#out);
    this.#out = out;
  }
}
