// safetensors: u64 length of the header, the header (JSON), the data. Read as strictly as the format is meant: no name
// twice, no hole and no overlap, up to the end of the file.

import { Dict, type Source, type Value } from '../../../js/src/index.js';
import type { Shown } from '../shown.js';
import { count } from '../text.js';
import { type Described, check, flat, product } from './flat.js';

const LONGEST = 100_000_000; // bytes of a header, as the library has it
const DTYPES: Record<string, readonly [string, number]> = { // name, bits
  BOOL: ['bool', 8], U8: ['uint8', 8], I8: ['int8', 8], U16: ['uint16', 16], I16: ['int16', 16], U32: ['uint32', 32],
  I32: ['int32', 32], U64: ['uint64', 64], I64: ['int64', 64], F16: ['float16', 16], BF16: ['bfloat16', 16],
  F32: ['float32', 32], F64: ['float64', 64], C64: ['complex64', 64], F8_E5M2: ['float8_e5m2', 8],
  F8_E4M3: ['float8_e4m3fn', 8], F8_E8M0: ['float8_e8m0fnu', 8], F8_E4M3FNUZ: ['float8_e4m3fnuz', 8],
  F8_E5M2FNUZ: ['float8_e5m2fnuz', 8], F4: ['float4_e2m1fn', 4],
};
const OTHERS: Record<string, number> = { F6_E2M3: 6, F6_E3M2: 6 }; // by bits; their numbers are not computed here

/** Whether the first bytes of a file are a header's. */
export function looksLikeSafetensors(head: Uint8Array): boolean {
  return head.length >= 10 && head[8] === 0x7b && lengthOf(head) <= LONGEST;
}

const lengthOf = (head: Uint8Array): number => Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true));

export async function openSafetensors(source: Source, head: Uint8Array, size: number, signal?: AbortSignal): Promise<Shown> {
  check(head.length >= 8, 'the file ends before its header');
  const length = lengthOf(head);
  check(length <= LONGEST, `a header of ${count(length, 'byte')}; the format allows ${count(LONGEST, 'byte')}`);
  check(8 + length <= size, 'the file ends within its header');
  const bytes = 8 + length <= head.length ? head.subarray(8, 8 + length) : await source.read('', 8, length, signal);
  check(bytes.length === length, 'the file ends within its header');
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch {
    check(false, 'the header is no JSON');
  }
  check(isObject(header), 'the header is no object');
  const twice = repeated(text);
  check(twice === undefined, `the name ${JSON.stringify(twice)} stands twice`);
  const { metadata, tensors } = described(header, 8 + length, size);
  const facts: [string, string][] = [['Header', count(length, 'byte')]];
  return flat(source, 'safetensors', tensors, metadata, facts, size);
}

function described(header: Record<string, unknown>, start: number, size: number): { metadata: Value; tensors: Described[] } {
  let metadata: Value = null;
  const tensors: Described[] = [];
  for (const [name, about] of Object.entries(header)) {
    if (name !== '__metadata__') {
      tensors.push(tensorOf(name, about, start));
      continue;
    }
    if (about === null) continue; // as mlx writes it
    check(isObject(about) && Object.values(about).every((value) => typeof value === 'string'), '__metadata__ is no map of texts');
    metadata = new Dict(Object.entries(about as Record<string, string>));
  }
  tensors.sort((one, two) => one.offset - two.offset || one.nbytes - two.nbytes);
  let end = start;
  for (const { name, offset, nbytes } of tensors) {
    check(offset === end, `the data of ${name} begin at byte ${offset - start}, not where those before end: ${end - start}`);
    end += nbytes;
  }
  check(end === size, `the tensors end at byte ${end}, the file at ${size}`);
  return { metadata, tensors };
}

function tensorOf(name: string, about: unknown, start: number): Described {
  check(isObject(about), `${name} is described by no object`);
  const { dtype, shape, data_offsets: offsets } = about;
  check(typeof dtype === 'string' && isNumbers(shape) && isNumbers(offsets) && offsets.length === 2, `${name}: dtype, shape or data_offsets are missing`);
  check(Object.hasOwn(DTYPES, dtype) || Object.hasOwn(OTHERS, dtype), `${name} has the unknown dtype ${dtype}`);
  const [known, bits] = Object.hasOwn(DTYPES, dtype) ? DTYPES[dtype]! : [dtype, OTHERS[dtype]!];
  const elements = product(shape);
  check(Number.isSafeInteger(elements * bits), `${name} is too large`);
  const nbytes = (elements * bits) / 8;
  check(Number.isInteger(nbytes) && offsets[1]! - offsets[0]! === nbytes, `${name} has ${offsets[1]! - offsets[0]!} bytes where its shape needs ${nbytes}`);
  const opaque = Object.hasOwn(OTHERS, dtype) ? `this page does not compute numbers of ${dtype}` : rowOpaque(bits, shape);
  return { name, dtype: known, shape, offset: start + offsets[0]!, nbytes, ...(opaque === undefined ? {} : { opaque }) };
}

const rowOpaque = (bits: number, shape: number[]): string | undefined =>
  (bits < 8 && (shape.at(-1) ?? 1) % 2 ? 'rows of an odd number of elements of 4 bits do not begin at a byte' : undefined);

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
const isNumbers = (value: unknown): value is number[] => Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);

/** A name that stands twice in the outermost object of valid JSON, or in one of those in it; of two JSON.parse keeps the last. */
function repeated(text: string): string | undefined {
  const names: Set<string>[] = [];
  for (let at = 0; at < text.length; at++) {
    const sign = text.charCodeAt(at);
    if (sign === 0x7b) names.push(new Set());
    else if (sign === 0x7d) names.pop();
    else if (sign === 0x22) {
      const begin = at;
      for (at++; text.charCodeAt(at) !== 0x22; at++) if (text.charCodeAt(at) === 0x5c) at++;
      let after = at + 1;
      while (/\s/.test(text.charAt(after))) after++;
      if (text.charCodeAt(after) !== 0x3a) continue;
      const name = JSON.parse(text.slice(begin, at + 1)) as string;
      const there = names.at(-1)!;
      if (there.has(name)) return name;
      there.add(name);
    }
  }
  return undefined;
}
