// A strict msgpack decoder. A checkpoint tells 1 from 1.0, keeps all bits of a NaN, and has no repeated keys and no
// invalid UTF-8; decoders made for JSON-like data keep none of this.

import { need } from './faults.js';

/** A binary64, kept as its bits: engines may change NaNs. */
export class Float {
  constructor(bits) {
    this.bits = bits;
  }

  valueOf() {
    return new Float64Array(BigUint64Array.of(this.bits).buffer)[0];
  }
}

const DEPTH = 1024; // of arrays and maps; the deepest tree takes about 520
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const FLOAT_64 = new DataView(new ArrayBuffer(8));

/**
 * The one value in `bytes`: null, boolean, BigInt for every integer, Float, string, Uint8Array, Array, and Map with
 * string keys [MAN-001]. If it is not `strict`, keys may be anything and repeat, and extensions are undefined.
 */
export function decode(bytes, strict = true) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;

  const take = (size) => {
    need(size <= bytes.length - at, 'MAN-001', 'msgpack ends too early'); // before anything is allocated [LIM-003]
    at += size;
    return at - size;
  };
  const uint = (size) => {
    const start = take(size);
    return size === 1 ? data.getUint8(start) : size === 2 ? data.getUint16(start) : data.getUint32(start);
  };
  const bin = (size) => bytes.subarray(take(size), at);
  const str = (size) => {
    const text = bin(size);
    try {
      return UTF8.decode(text);
    } catch {
      return need(false, 'TREE-015', 'a string is no valid UTF-8');
    }
  };
  const array = (size, depth) => {
    need(size <= bytes.length - at && depth < DEPTH, 'MAN-001', 'msgpack is nested too deeply, or ends too early');
    const items = [];
    while (items.length < size) items.push(item(depth + 1));
    return items;
  };
  const map = (size, depth) => {
    need(2 * size <= bytes.length - at && depth < DEPTH, 'MAN-001', 'msgpack is nested too deeply, or ends too early');
    const entries = new Map();
    for (let i = 0; i < size; i++) {
      const key = item(depth + 1);
      need(!strict || typeof key === 'string', 'MAN-001', 'a map has a key that is no string');
      need(!strict || !entries.has(key), 'MAN-001', `a map repeats the key ${key}`);
      entries.set(key, item(depth + 1));
    }
    return entries;
  };
  const float32 = () => {
    FLOAT_64.setFloat64(0, data.getFloat32(take(4)));
    return new Float(FLOAT_64.getBigUint64(0));
  };
  const extension = (size) => {
    need(!strict, 'MAN-001', 'an extension type');
    take(1 + size);
  };
  const item = (depth) => {
    const tag = uint(1);
    if (tag < 0x80) return BigInt(tag);
    if (tag < 0x90) return map(tag & 0x0f, depth);
    if (tag < 0xa0) return array(tag & 0x0f, depth);
    if (tag < 0xc0) return str(tag & 0x1f);
    if (tag >= 0xe0) return BigInt(tag - 0x100);
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return bin(uint(1 << (tag - 0xc4)));
      case 0xc7: case 0xc8: case 0xc9: return extension(uint(1 << (tag - 0xc7)));
      case 0xca: return float32();
      case 0xcb: return new Float(data.getBigUint64(take(8)));
      case 0xcc: case 0xcd: case 0xce: return BigInt(uint(1 << (tag - 0xcc)));
      case 0xcf: return data.getBigUint64(take(8));
      case 0xd0: return BigInt(data.getInt8(take(1)));
      case 0xd1: return BigInt(data.getInt16(take(2)));
      case 0xd2: return BigInt(data.getInt32(take(4)));
      case 0xd3: return data.getBigInt64(take(8));
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return extension(1 << (tag - 0xd4));
      case 0xd9: case 0xda: case 0xdb: return str(uint(1 << (tag - 0xd9)));
      case 0xdc: case 0xdd: return array(uint(tag === 0xdc ? 2 : 4), depth);
      case 0xde: case 0xdf: return map(uint(tag === 0xde ? 2 : 4), depth);
      default: return need(false, 'MAN-001', `the byte 0x${tag.toString(16)} is no msgpack`);
    }
  };

  const value = item(0);
  need(at === bytes.length, 'MAN-001', 'there are bytes after the msgpack');
  return value;
}

/** The canonical msgpack of strings, integers and arrays of them: all that a fingerprint takes [SCH-002]. */
export function encode(value) {
  const head = (size, ...forms) => { // forms: [first size too large, tag, bytes of the size]
    const [, tag, width] = forms.find(([end]) => size < end);
    const bytes = Buffer.alloc(1 + 8);
    bytes.writeBigUInt64BE(BigInt(size), 1);
    return width ? Buffer.concat([Buffer.of(tag), bytes.subarray(9 - width)]) : Buffer.of(tag + Number(size));
  };
  if (Array.isArray(value)) {
    const start = head(value.length, [16, 0x90, 0], [1 << 16, 0xdc, 2], [2 ** 32, 0xdd, 4]);
    return Buffer.concat([start, ...value.map(encode)]);
  }
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    const start = head(text.length, [32, 0xa0, 0], [1 << 8, 0xd9, 1], [1 << 16, 0xda, 2], [2 ** 32, 0xdb, 4]);
    return Buffer.concat([start, text]);
  }
  return head(value, [128, 0, 0], [1 << 8, 0xcc, 1], [1 << 16, 0xcd, 2], [2 ** 32, 0xce, 4], [2 ** 64, 0xcf, 8]);
}
