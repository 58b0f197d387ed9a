// What a read touches, by arithmetic: blocks of the chunks of a tensor, before anything is read. Pure.

import { madeOf, type Pick, type ShownTensor } from './shown.js';

const BITS: Record<string, number> = { bool: 8, bcomplex32: 32, bfloat16: 16 };
const MOST = 20_000; // runs that are looked at one by one; beyond that, what lies between them counts as touched

/** Bits of an element of a dtype, as it is stored. */
export function bitsOf(dtype: string): number {
  const found = BITS[dtype] ?? Number(/(?:int|float|complex)([0-9]+)/.exec(dtype)?.[1] ?? 8);
  return found === 6 ? 8 : found;
}

export interface Touched {
  /** Bytes of the blocks. */
  bytes: number;
  /** `chunk:block` of each. */
  blocks: Set<string>;
}

/** The blocks that a selection of a raw tensor touches; of a compressed one whole chunks, each as one block. */
export function touched(tensor: ShownTensor, selection: Pick, block: number): Touched {
  const rank = tensor.shape.length;
  const blocks = new Set<string>();
  const bits = bitsOf(tensor.dtype);
  const per = bits < 8 ? 8 / bits : 1; // elements of a storage element
  const size = bits < 8 ? 1 : bits / 8;
  const axes = selection.map((one, axis) => spanOf(one, tensor.shape[axis] ?? 1, axis === rank - 1 ? per : 1));
  if (axes.some(({ count }) => count === 0)) return { bytes: 0, blocks };
  const grid = rank === 0 ? [1] : tensor.grid;
  const counts = rank === 0 ? [1] : tensor.shape.map((side, axis) => Math.ceil(Math.ceil(side / (axis === rank - 1 ? per : 1)) / grid[axis]!));
  if (rank === 0) axes.push({ start: 0, step: 1, count: 1 });
  const chunkBytes = grid.reduce((product, side) => product * side, size);
  const lastBlock = Math.max(1, Math.ceil(chunkBytes / block));
  let total = 0;
  for (const at of chunksOf(axes, grid)) {
    const number = at.reduce((sum, { chunk }, axis) => sum * counts[axis]! + chunk, 0);
    if (tensor.codec !== undefined) {
      blocks.add(`${number}:0`);
      total += chunkBytes;
      continue;
    }
    for (const [first, last] of runsOf(at, grid, size)) {
      for (let i = Math.floor(first / block); i <= Math.min(lastBlock - 1, Math.floor(last / block)); i++) {
        const key = `${number}:${i}`;
        if (blocks.has(key)) continue;
        blocks.add(key);
        total += Math.min(block, chunkBytes - i * block);
      }
    }
  }
  return { bytes: total, blocks };
}

/** Bytes of the blocks that a selection touches, of a tensor of a patch also those of the base. */
export function bytesTouched(tensor: ShownTensor, selection: Pick, block: number): number {
  let total = 0;
  for (const one of madeOf(tensor)) if (one.form !== 'same') total += touched(one, selection, one.block ?? block).bytes;
  return total;
}

interface Span {
  start: number;
  step: number;
  count: number;
}

interface InChunk extends Span {
  chunk: number;
}

function spanOf(one: Pick[number], side: number, per: number): Span {
  if (typeof one === 'number') return { start: Math.floor(one / per), step: 1, count: 1 };
  const { start = 0, stop = side, step = 1 } = one ?? {};
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (per === 1 || count === 0) return { start, step, count };
  const first = Math.floor(start / per);
  return { start: first, step: 1, count: Math.floor((start + (count - 1) * step) / per) - first + 1 };
}

function* chunksOf(axes: Span[], grid: readonly number[], axis = 0): Generator<InChunk[]> {
  const one = axes[axis];
  if (one === undefined) {
    yield [];
    return;
  }
  const side = grid[axis]!;
  for (let first = 0; first < one.count;) {
    const position = one.start + first * one.step;
    const chunk = Math.floor(position / side);
    const next = Math.min(one.count, Math.ceil(((chunk + 1) * side - one.start) / one.step));
    const here = { chunk, start: position - chunk * side, step: one.step, count: next - first };
    for (const rest of chunksOf(axes, grid, axis + 1)) yield [here, ...rest];
    first = next;
  }
}

/** First and last byte of each run in a chunk; where there are very many, of all of it. */
function* runsOf(at: InChunk[], grid: readonly number[], size: number): Generator<[number, number]> {
  let inner = at.length - 1; // the axis below which everything is taken
  while (inner > 0 && at[inner]!.step === 1 && at[inner]!.start === 0 && at[inner]!.count === grid[inner]) inner--;
  const strides = grid.map((_, axis) => grid.slice(axis + 1).reduce((product, side) => product * side, size));
  const outer = at.slice(0, inner).reduce((product, { count }) => product * count, 1);
  const offset = (axes: number[]): number => axes.reduce((sum, i, axis) => sum + (at[axis]!.start + i * at[axis]!.step) * strides[axis]!, 0);
  const row = at[inner]!;
  const length = ((row.count - 1) * row.step + 1) * strides[inner]!;
  const apart = row.step > 1 && row.step * strides[inner]! > 4096 && outer * row.count <= MOST; // each by itself
  const most = outer > MOST ? 1 : outer;
  for (let i = 0; i < most; i++) {
    const axes: number[] = [];
    for (let axis = inner - 1, rest = i; axis >= 0; axis--) {
      axes.unshift(rest % at[axis]!.count);
      rest = Math.floor(rest / at[axis]!.count);
    }
    const begin = offset(axes) + row.start * strides[inner]!;
    if (outer > MOST) {
      const end = at.slice(0, inner).reduce((sum, { count, step }, axis) => sum + (count - 1) * step * strides[axis]!, begin + length);
      yield [begin, end - 1];
    } else if (apart) {
      for (let j = 0; j < row.count; j++) {
        const from = begin + j * row.step * strides[inner]!;
        yield [from, from + strides[inner]! - 1];
      }
    } else yield [begin, begin + length - 1];
  }
}
