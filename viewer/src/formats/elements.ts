// From stored bytes to numbers: little-endian, and blocks of GGUF.

import { type BlockType, half } from './ggml.js';

interface Along {
  step: number;
  count: number;
}

type Output = Float32Array | Float64Array | BigInt64Array | BigUint64Array | Int32Array | Uint32Array | Int16Array | Uint16Array | Int8Array | Uint8Array;

/** Put `count` elements of a row, every `step`-th from the one at `skip` on, into `out`. The row's bytes begin at `at`. */
export function decoded(
  dtype: string, blocks: BlockType | undefined, bytes: Uint8Array, at: number, width: number, { step, count }: Along, skip: number,
  out: Output, to: number,
): void {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (blocks?.numbers) {
    const numbers = new Float32Array((width / blocks.bytes) * blocks.elements);
    for (let i = 0; i * blocks.bytes < width; i++) blocks.numbers(data, at + i * blocks.bytes, numbers, i * blocks.elements);
    for (let i = 0; i < count; i++) out[to + i] = numbers[skip + i * step]!;
    return;
  }
  const read = READERS[dtype];
  if (read === undefined) throw new Error(`no numbers of ${dtype}`);
  for (let i = 0; i < count; i++) read(data, at, skip + i * step, out, to + i);
}

type Read = (data: DataView, at: number, i: number, out: Output, to: number) => void;

const number = (size: number, get: (data: DataView, at: number) => number): Read => (data, at, i, out, to) => {
  out[to] = get(data, at + i * size);
};
const big = (get: (data: DataView, at: number) => bigint): Read => (data, at, i, out, to) => {
  out[to] = get(data, at + 8 * i);
};

/** A float of 8 bits: without infinities where `top` is all that is no number, `zero` the code that is the only NaN. */
function small(exponentBits: number, bias: number, kind: 'ieee' | 'fn' | 'fnuz'): Float32Array {
  const mantissaBits = 7 - exponentBits;
  return Float32Array.from({ length: 256 }, (_, code) => {
    const [sign, exponent, mantissa] = [code & 128 ? -1 : 1, (code & 127) >> mantissaBits, code & ((1 << mantissaBits) - 1)];
    if (kind === 'fnuz' && code === 128) return NaN;
    const top = (1 << exponentBits) - 1;
    if (kind === 'ieee' && exponent === top) return mantissa ? NaN : sign * Infinity;
    if (kind === 'fn' && (code & 127) === 127) return NaN;
    const part = mantissa / (1 << mantissaBits);
    return sign * (exponent === 0 ? part * 2 ** (1 - bias) : (1 + part) * 2 ** (exponent - bias));
  });
}

const SMALL: Record<string, Float32Array> = {
  float8_e5m2: small(5, 15, 'ieee'),
  float8_e4m3fn: small(4, 7, 'fn'),
  float8_e5m2fnuz: small(5, 16, 'fnuz'),
  float8_e4m3fnuz: small(4, 8, 'fnuz'),
  float8_e8m0fnu: Float32Array.from({ length: 256 }, (_, code) => (code === 255 ? NaN : 2 ** (code - 127))),
};

const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const word = new Uint32Array(1);
const single = new Float32Array(word.buffer);

const READERS: Record<string, Read> = {
  bool: number(1, (data, at) => (data.getUint8(at) ? 1 : 0)),
  uint8: number(1, (data, at) => data.getUint8(at)),
  int8: number(1, (data, at) => data.getInt8(at)),
  uint16: number(2, (data, at) => data.getUint16(at, true)),
  int16: number(2, (data, at) => data.getInt16(at, true)),
  uint32: number(4, (data, at) => data.getUint32(at, true)),
  int32: number(4, (data, at) => data.getInt32(at, true)),
  uint64: big((data, at) => data.getBigUint64(at, true)),
  int64: big((data, at) => data.getBigInt64(at, true)),
  float16: number(2, (data, at) => half(data.getUint16(at, true))),
  bfloat16: number(2, (data, at) => {
    word[0] = data.getUint16(at, true) << 16;
    return single[0]!;
  }),
  float32: number(4, (data, at) => data.getFloat32(at, true)),
  float64: number(8, (data, at) => data.getFloat64(at, true)),
  complex64: (data, at, i, out, to) => {
    out[2 * to] = data.getFloat32(at + 8 * i, true);
    out[2 * to + 1] = data.getFloat32(at + 8 * i + 4, true);
  },
  float4_e2m1fn: (data, at, i, out, to) => {
    const code = (data.getUint8(at + (i >> 1)) >> (4 * (i & 1))) & 15;
    out[to] = code & 8 ? -E2M1[code & 7]! : E2M1[code]!;
  },
  ...Object.fromEntries(Object.entries(SMALL).map(([name, table]) => [name, number(1, (data, at) => table[data.getUint8(at)]!)])),
};
