// Types of tensors in GGUF, and the numbers of blocks: as `gguf.quants` of llama.cpp's package has them. Pure.

const K = 256;

/** Name, elements of a block, bytes of a block. */
const TYPES: Record<number, readonly [string, number, number]> = {
  0: ['F32', 1, 4], 1: ['F16', 1, 2], 2: ['Q4_0', 32, 18], 3: ['Q4_1', 32, 20], 6: ['Q5_0', 32, 22], 7: ['Q5_1', 32, 24],
  8: ['Q8_0', 32, 34], 9: ['Q8_1', 32, 40], 10: ['Q2_K', K, 84], 11: ['Q3_K', K, 110], 12: ['Q4_K', K, 144],
  13: ['Q5_K', K, 176], 14: ['Q6_K', K, 210], 15: ['Q8_K', K, 292], 16: ['IQ2_XXS', K, 66], 17: ['IQ2_XS', K, 74],
  18: ['IQ3_XXS', K, 98], 19: ['IQ1_S', K, 50], 20: ['IQ4_NL', 32, 18], 21: ['IQ3_S', K, 110], 22: ['IQ2_S', K, 82],
  23: ['IQ4_XS', K, 136], 24: ['I8', 1, 1], 25: ['I16', 1, 2], 26: ['I32', 1, 4], 27: ['I64', 1, 8], 28: ['F64', 1, 8],
  29: ['IQ1_M', K, 56], 30: ['BF16', 1, 2], 34: ['TQ1_0', K, 54], 35: ['TQ2_0', K, 66], 39: ['MXFP4', 32, 17],
  40: ['NVFP4', 64, 36], 41: ['Q1_0', 128, 18],
};

/** Plain types by the dtype that they are. */
export const PLAIN: Record<string, string> = {
  F32: 'float32', F16: 'float16', BF16: 'bfloat16', F64: 'float64', I8: 'int8', I16: 'int16', I32: 'int32', I64: 'int64',
};

export interface BlockType {
  name: string;
  elements: number;
  bytes: number;
  /** The numbers of a block; undefined where this page does not compute them. */
  numbers: ((data: DataView, at: number, out: Float32Array, to: number) => void) | undefined;
}

export function typeOf(number: number): BlockType | undefined {
  const row = TYPES[number];
  return row && { name: row[0], elements: row[1], bytes: row[2], numbers: NUMBERS[row[0]] };
}

export function half(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}

type Numbers = BlockType['numbers'];

const f16 = (data: DataView, at: number): number => half(data.getUint16(at, true));
const f32 = Math.fround;

/** Blocks of 32 with a scale, maybe an offset, maybe a fifth bit, and two elements of 4 bits in each byte. */
function nibbles(offsetAt: number | null, fifthAt: number | null, from: number, shift: number): Numbers {
  return (data, at, out, to) => {
    const scale = f16(data, at);
    const offset = offsetAt === null ? 0 : f16(data, at + offsetAt);
    const fifth = fifthAt === null ? 0 : data.getUint32(at + fifthAt, true);
    for (let i = 0; i < 32; i++) {
      const byte = data.getUint8(at + from + (i % 16));
      const low = i < 16 ? byte & 15 : byte >> 4;
      const q = (low | (((fifth >>> i) & 1) << 4)) - shift;
      out[to + i] = f32(scale * q) + offset;
    }
  };
}

function codebook(values: readonly number[], scaleOf: (data: DataView, at: number) => number, from: number): Numbers {
  return (data, at, out, to) => {
    const scale = scaleOf(data, at);
    for (let i = 0; i < 32; i++) {
      const byte = data.getUint8(at + from + (i % 16));
      out[to + i] = scale * values[i < 16 ? byte & 15 : byte >> 4]!;
    }
  };
}

/** Scale and offset `j` of the eight of a block of Q4_K and Q5_K, of 6 bits each. */
function scaleAndOffset(data: DataView, at: number, j: number): [number, number] {
  const byte = (i: number): number => data.getUint8(at + i);
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 2) & 0x30), (byte(j + 4) >> 4) | ((byte(j) >> 2) & 0x30)];
}

function q45(fifthAt: number | null, from: number): Numbers {
  return (data, at, out, to) => {
    const [d, least] = [f16(data, at), f16(data, at + 2)];
    for (let j = 0; j < 8; j++) {
      const [scale, offset] = scaleAndOffset(data, at + 4, j);
      const [dj, mj] = [f32(d * scale), f32(least * offset)];
      for (let i = 0; i < 32; i++) {
        const byte = data.getUint8(at + from + 32 * (j >> 1) + i);
        let q = j & 1 ? byte >> 4 : byte & 15;
        if (fifthAt !== null) q |= ((data.getUint8(at + fifthAt + i) >> j) & 1) << 4;
        out[to + 32 * j + i] = f32(dj * q) - mj;
      }
    }
  };
}

const q6: Numbers = (data, at, out, to) => {
  const d = f16(data, at + 208);
  for (let i = 0; i < K; i++) {
    const [half128, inHalf] = [i >> 7, i & 127];
    const [group, lane] = [inHalf >> 5, inHalf & 31];
    const low = data.getUint8(at + 64 * half128 + 32 * (group & 1) + lane);
    const high = data.getUint8(at + 128 + 32 * half128 + lane);
    const q = ((group < 2 ? low & 15 : low >> 4) | (((high >> (2 * group)) & 3) << 4)) - 32;
    out[to + i] = f32(d * data.getInt8(at + 192 + (i >> 4))) * q;
  }
};

const q2: Numbers = (data, at, out, to) => {
  const [d, least] = [f16(data, at + 80), f16(data, at + 82)];
  for (let i = 0; i < K; i++) {
    const scales = data.getUint8(at + (i >> 4));
    const q = (data.getUint8(at + 16 + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
    out[to + i] = f32(f32(d * (scales & 15)) * q) - f32(least * (scales >> 4));
  }
};

const q3: Numbers = (data, at, out, to) => {
  const d = f16(data, at + 108);
  for (let i = 0; i < K; i++) {
    const j = i >> 4;
    const low = (data.getUint8(at + 96 + (j & 7)) >> (j < 8 ? 0 : 4)) & 15;
    const high = (data.getUint8(at + 104 + (j & 3)) >> (2 * (j >> 2))) & 3;
    const scale = f32(d * ((low | (high << 4)) - 32));
    const bits = (data.getUint8(at + 32 + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;
    const isHigh = (data.getUint8(at + (i & 31)) >> (i >> 5)) & 1;
    out[to + i] = scale * (bits - (isHigh ? 0 : 4));
  }
};

const q8: Numbers = (data, at, out, to) => {
  const d = f16(data, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * data.getInt8(at + 2 + i);
};

const NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const E2M1 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]; // doubled

const NUMBERS: Record<string, Numbers> = {
  Q4_0: nibbles(null, null, 2, 8),
  Q4_1: nibbles(2, null, 4, 0),
  Q5_0: nibbles(null, 2, 6, 16),
  Q5_1: nibbles(2, 4, 8, 0),
  Q8_0: q8,
  Q2_K: q2,
  Q3_K: q3,
  Q4_K: q45(null, 16),
  Q5_K: q45(16, 48),
  Q6_K: q6,
  IQ4_NL: codebook(NL, f16, 2),
  MXFP4: codebook(E2M1, (data, at) => 2 ** (data.getUint8(at) - 128), 1),
};
