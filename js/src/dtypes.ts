// Section 3: dtypes, and the arrays that JavaScript has for their elements.

import type { Dtype, TypedArray } from './api.js';
import { inOrderOfMachine } from './bytes.js';
import { CkptError } from './errors.js';

export interface DtypeInfo {
  /** Bytes of a storage element. */
  readonly size: number;
  /** Logical elements in it. */
  readonly packed: number;
  /** Meaningful bits of each. */
  readonly bits: number;
}

const TABLE: [size: number, packed: number, bits: number, names: string][] = [
  [1, 1, 8, 'bool int8 uint8 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz'
    + ' float8_e5m2 float8_e5m2fnuz float8_e5m3fnu float8_e8m0fnu'],
  [2, 1, 16, 'int16 uint16 float16 bfloat16'],
  [4, 1, 32, 'int32 uint32 float32 complex32 bcomplex32'],
  [8, 1, 64, 'int64 uint64 float64 complex64'],
  [16, 1, 128, 'complex128'],
  [1, 1, 6, 'float6_e2m3fn float6_e3m2fn'],
  [1, 2, 4, 'float4_e2m1fn int4 uint4'],
  [1, 4, 2, 'int2 uint2'],
  [1, 8, 1, 'int1 uint1'],
];

const DTYPES = new Map<string, DtypeInfo>(TABLE.flatMap(
  ([size, packed, bits, names]) => names.split(' ').map((name) => [name, { size, packed, bits }] as const)));

export const isDtype = (name: string): name is Dtype => DTYPES.has(name);

export function infoOf(name: string): DtypeInfo {
  const info = DTYPES.get(name);
  if (info === undefined) throw new CkptError('unknown-dtype', `dtype ${JSON.stringify(name.slice(0, 100))} [DTYPE-001]`);
  return info;
}

/** Exponent and significand bits, bias, and what the greatest exponent means. */
interface FloatForm {
  readonly exponent: number;
  readonly significand: number;
  readonly bias: number;
  /** `ieee`: infinities and NaNs; `fn`: the one greatest code is NaN; `fnuz`: -0 is; `finite`: none is. */
  readonly special: 'ieee' | 'fn' | 'fnuz' | 'finite';
}

const FLOATS: Partial<Record<Dtype, FloatForm>> = {
  float16: { exponent: 5, significand: 10, bias: 15, special: 'ieee' },
  float8_e3m4: { exponent: 3, significand: 4, bias: 3, special: 'ieee' },
  float8_e4m3: { exponent: 4, significand: 3, bias: 7, special: 'ieee' },
  float8_e4m3b11fnuz: { exponent: 4, significand: 3, bias: 11, special: 'fnuz' },
  float8_e4m3fn: { exponent: 4, significand: 3, bias: 7, special: 'fn' },
  float8_e4m3fnuz: { exponent: 4, significand: 3, bias: 8, special: 'fnuz' },
  float8_e5m2: { exponent: 5, significand: 2, bias: 15, special: 'ieee' },
  float8_e5m2fnuz: { exponent: 5, significand: 2, bias: 16, special: 'fnuz' },
  float8_e5m3fnu: { exponent: 5, significand: 3, bias: 15, special: 'fn' },
  float6_e2m3fn: { exponent: 2, significand: 3, bias: 1, special: 'finite' },
  float6_e3m2fn: { exponent: 3, significand: 2, bias: 3, special: 'finite' },
  float4_e2m1fn: { exponent: 2, significand: 1, bias: 1, special: 'finite' },
};

/** The number that a code stands for. */
function numberOf(code: number, { exponent, significand, bias, special }: FloatForm): number {
  const negative = code >> (exponent + significand) === 1;
  const power = (code >> significand) & ((1 << exponent) - 1);
  const fraction = code & ((1 << significand) - 1);
  const greatest = power === (1 << exponent) - 1;
  if (special === 'ieee' && greatest) return fraction ? NaN : negative ? -Infinity : Infinity;
  if (special === 'fn' && greatest && fraction === (1 << significand) - 1) return NaN;
  if (special === 'fnuz' && negative && power === 0 && fraction === 0) return NaN;
  const size = power === 0 ? fraction * 2 ** (1 - bias - significand)
    : (1 + fraction / (1 << significand)) * 2 ** (power - bias);
  return negative ? -size : size;
}

const tables = new Map<Dtype, Float32Array>();

/** For each code its number, which a float32 holds exactly. */
function tableOf(dtype: Dtype): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    const form = FLOATS[dtype];
    table = form === undefined // float8_e8m0fnu: powers of two, and NaN
      ? Float32Array.from({ length: 256 }, (_, code) => (code === 255 ? NaN : 2 ** (code - 127)))
      : Float32Array.from({ length: 2 ** infoOf(dtype).bits }, (_, code) => numberOf(code, form));
    tables.set(dtype, table);
  }
  return table;
}

type Make = (data: ArrayBuffer) => TypedArray;

const DIRECT: Partial<Record<Dtype, Make>> = {
  bool: (data) => new Uint8Array(data), uint8: (data) => new Uint8Array(data), int8: (data) => new Int8Array(data),
  int16: (data) => new Int16Array(data), uint16: (data) => new Uint16Array(data),
  int32: (data) => new Int32Array(data), uint32: (data) => new Uint32Array(data),
  int64: (data) => new BigInt64Array(data), uint64: (data) => new BigUint64Array(data),
  float32: (data) => new Float32Array(data), float64: (data) => new Float64Array(data),
  complex64: (data) => new Float32Array(data), complex128: (data) => new Float64Array(data),
};

const WORD: Partial<Record<Dtype, number>> = { complex64: 4, complex128: 8, complex32: 2, bcomplex32: 2 };

/**
 * The array that JavaScript has for elements that are stored so, rows of `row` bytes with `count` elements each (0-d: one).
 * `bytes` is the whole of its buffer, which becomes that of the array where no element changes.
 */
export function elementsOf(bytes: Uint8Array, dtype: Dtype, row: number, count: number): TypedArray {
  const { size, packed, bits } = infoOf(dtype);
  inOrderOfMachine(bytes, WORD[dtype] ?? size);
  const direct = DIRECT[dtype];
  if (direct !== undefined) return direct(bytes.buffer as ArrayBuffer);
  if (dtype === 'bfloat16' || dtype === 'bcomplex32') return widened(new Uint16Array(bytes.buffer as ArrayBuffer));
  const codes = packed > 1 ? unpacked(bytes, row, count, bits, packed)
    : size > 1 ? new Uint16Array(bytes.buffer as ArrayBuffer) : bytes;
  if (dtype.startsWith('int')) return signed(codes, bits);
  if (dtype.startsWith('uint')) return codes;
  const table = tableOf(dtype === 'complex32' ? 'float16' : dtype);
  const out = new Float32Array(codes.length);
  for (let i = 0; i < out.length; i++) out[i] = table[codes[i]!]!;
  return out;
}

/** bfloat16 is the upper half of a float32. */
function widened(codes: Uint16Array): Float32Array {
  const out = new Uint32Array(codes.length);
  for (let i = 0; i < out.length; i++) out[i] = codes[i]! << 16;
  return new Float32Array(out.buffer);
}

function signed(codes: Uint8Array | Uint16Array, bits: number): Int8Array {
  const out = new Int8Array(codes.length);
  for (let i = 0; i < out.length; i++) out[i] = (codes[i]! << (32 - bits)) >> (32 - bits);
  return out;
}

/** Elements of fewer than 8 bits, a byte each [DTYPE-004]. */
function unpacked(rows: Uint8Array, row: number, count: number, bits: number, packed: number): Uint8Array {
  const out = new Uint8Array((rows.length / row) * count);
  const mask = (1 << bits) - 1;
  for (let r = 0, to = 0; r < rows.length; r += row) {
    for (let i = 0; i < count; i++) out[to++] = (rows[r + Math.floor(i / packed)]! >> ((i % packed) * bits)) & mask;
  }
  return out;
}

/** Pick elements of fewer than 8 bits from rows, and pack each row from the lowest bits on [DTYPE-004] [DTYPE-010]. */
export function repacked(
  rows: Uint8Array, row: number, start: number, step: number, count: number, { bits, packed }: DtypeInfo,
): Uint8Array {
  const width = Math.ceil(count / packed);
  const out = new Uint8Array((rows.length / row) * width);
  const mask = (1 << bits) - 1;
  for (let r = 0; r * row < rows.length; r++) {
    for (let i = 0, from = start; i < count; i++, from += step) {
      const element = (rows[r * row + Math.floor(from / packed)]! >> ((from % packed) * bits)) & mask;
      out[r * width + Math.floor(i / packed)]! |= element << ((i % packed) * bits);
    }
  }
  return out;
}
