// Tensors in one file, each a run of bytes at its place, with names and without digests: what safetensors and GGUF have.

import type { Source } from '../../../js/src/index.js';
import type { Elements, Pick, Shown, ShownEntry, ShownTensor, Value } from '../shown.js';
import { shapeText } from '../text.js';
import { decoded } from './elements.js';
import type { BlockType } from './ggml.js';

const APART = 256 * 1024; // bytes between two runs that are worth a read of their own
const MOST = 512 * 2 ** 20; // bytes that one read may take

/** What a header says of a tensor. `blocks`: how its elements stand in blocks, if they do. */
export interface Described {
  name: string;
  dtype: string;
  shape: number[];
  offset: number;
  nbytes: number;
  blocks?: BlockType;
  opaque?: string;
}

/** A header that breaks its format, in one line. */
export class FormatError extends Error {
  override readonly name = 'FormatError';
}

export function check(holds: unknown, what: string): asserts holds {
  if (!holds) throw new FormatError(what);
}

class FlatTensor implements ShownTensor {
  readonly label: string;
  readonly chunkCount = 1;
  readonly codec = undefined;

  constructor(readonly file: Source, readonly about: Described) {
    this.label = about.name;
  }

  get name(): string { return this.about.name; }
  get dtype(): string { return this.about.dtype; }
  get shape(): number[] { return this.about.shape; }
  get nbytes(): number { return this.about.nbytes; }
  get grid(): number[] { return this.about.shape; }
  get opaque(): string | undefined { return this.about.opaque; }

  /** The elements of a selection; runs that lie near each other are read as one. */
  async read(selection: Pick = [], { signal }: { signal?: AbortSignal } = {}): Promise<Elements> {
    const { shape, dtype, blocks, offset } = this.about;
    const axes = shape.map((side, axis) => axisOf(selection[axis] ?? null, side));
    const kept = axes.filter(({ isIndex }) => !isIndex).map(({ count }) => count);
    const unit = blocks ?? { elements: 1, bytes: this.about.nbytes / Math.max(1, product(shape)) };
    const last = axes.at(-1) ?? { start: 0, step: 1, count: 1 };
    const row = shape.at(-1) ?? 1;
    const rowBytes = (row / unit.elements) * unit.bytes;
    const outer = axes.slice(0, -1);
    const rows = product(outer.map(({ count }) => count));
    const [first, end] = [Math.floor(last.start / unit.elements), Math.floor((last.start + Math.max(0, last.count - 1) * last.step) / unit.elements) + 1];
    const width = (end - first) * unit.bytes; // bytes that are wanted of each row
    const out = outputOf(dtype, rows * last.count);
    if (rows * last.count > 0) {
      const strides = outer.map((_, axis) => product(shape.slice(axis + 1, -1)) * rowBytes);
      const starts = startsOf(outer, strides, offset + first * unit.bytes);
      for (const { from, to, begin, bytes } of await this.#runs(starts, width, signal)) {
        for (let i = from; i < to; i++) {
          const at = starts[i]! - begin;
          decoded(dtype, blocks, bytes, at, width, last, last.start - first * unit.elements, out, i * last.count);
        }
      }
    }
    return { dtype, shape: kept, data: out };
  }

  /** Bytes of rows that begin at `starts`, in as few reads as make sense. */
  async* #chunks(starts: Float64Array, width: number, signal: AbortSignal | undefined) {
    for (let from = 0; from < starts.length;) {
      let to = from + 1;
      while (to < starts.length && starts[to]! - (starts[to - 1]! + width) < APART) to++;
      const begin = starts[from]!;
      const length = starts[to - 1]! + width - begin;
      check(length <= MOST, 'this part is too large to be read at once');
      const bytes = await this.file.read('', begin, length, signal);
      check(bytes.length === length, `the file ends before the tensor ${this.name} does`);
      yield { from, to, begin, bytes };
      from = to;
    }
  }

  async #runs(starts: Float64Array, width: number, signal: AbortSignal | undefined) {
    const runs = [];
    for await (const run of this.#chunks(starts, width, signal)) runs.push(run);
    return runs;
  }
}

interface TakenAxis {
  start: number;
  step: number;
  count: number;
  isIndex: boolean;
}

function axisOf(one: Pick[number], side: number): TakenAxis {
  if (typeof one === 'number') return { start: one, step: 1, count: 1, isIndex: true };
  const { start = 0, stop = side, step = 1 } = one ?? {};
  return { start, step, count: Math.max(0, Math.ceil((stop - start) / step)), isIndex: false };
}

/** The first byte of each row, the last axis but one varying fastest. */
function startsOf(outer: TakenAxis[], strides: number[], base: number): Float64Array {
  const starts = new Float64Array(product(outer.map(({ count }) => count)));
  for (let i = 0; i < starts.length; i++) {
    let [rest, at] = [i, base];
    for (let axis = outer.length - 1; axis >= 0; axis--) {
      const { start, step, count } = outer[axis]!;
      at += (start + (rest % count) * step) * strides[axis]!;
      rest = Math.floor(rest / count);
    }
    starts[i] = at;
  }
  return starts;
}

function outputOf(dtype: string, length: number) {
  switch (dtype) {
    case 'int64': return new BigInt64Array(length);
    case 'uint64': return new BigUint64Array(length);
    case 'float64': return new Float64Array(length);
    case 'int32': return new Int32Array(length);
    case 'uint32': return new Uint32Array(length);
    case 'int16': return new Int16Array(length);
    case 'uint16': return new Uint16Array(length);
    case 'int8': return new Int8Array(length);
    case 'uint8': case 'bool': return new Uint8Array(length);
    case 'complex64': return new Float32Array(2 * length);
    default: return new Float32Array(length);
  }
}

export const product = (sides: readonly number[]): number => sides.reduce((all, side) => all * side, 1);

/** Such a file as the page shows it. */
export function flat(
  source: Source, format: 'safetensors' | 'gguf', described: readonly Described[], metadata: Value,
  facts: (readonly [string, string])[], size: number,
): Shown {
  const tensors = described.map((about) => new FlatTensor(source, about));
  const entry = (tensor: FlatTensor): ShownEntry => ({
    key: tensor.name, path: [tensor.name], kind: 'tensor', tags: [], count: undefined,
    preview: `${tensor.dtype} ${shapeText(tensor.shape)}`, tensor, value: undefined,
  });
  return {
    name: source.label, format, size, block: 64 * 1024, digest: undefined, facts, metadata, schema: null, provenance: null,
    tensorCount: tensors.length, rootCount: tensors.length,
    children: async (_, { start = 0, stop = tensors.length } = {}) => tensors.slice(start, stop).map(entry),
    async* tensors() { yield* tensors; },
    close: () => source.close(),
  };
}
