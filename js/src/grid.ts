// Which elements are wanted, and by arithmetic in which chunks they lie and where [READ-003].

import type { Selection } from './api.js';
import { infoOf } from './dtypes.js';
import { CkptError } from './errors.js';
import type { Kind } from './specs.js';

/** Positions start, start + step … along one axis, `count` of them. */
export interface Axis {
  readonly start: number;
  readonly step: number;
  readonly count: number;
}

/** A selection that fits a shape: the positions on each axis, and the shape of what is given. */
export interface Box {
  readonly axes: readonly Axis[];
  readonly shape: readonly number[];
}

function bad(what: string): CkptError {
  return new CkptError('bad-index', `${what} [READ-011]`);
}

/** `selection` on a tensor: as NumPy's basic indexing, with steps of at least 1. */
export function boxOf(kind: Kind, selection: Selection = []): Box {
  if (!Array.isArray(selection)) throw bad('a selection is an array with one item for each axis');
  if (selection.length > kind.shape.length) throw bad(`${selection.length} items for a tensor of rank ${kind.shape.length}`);
  const axes: Axis[] = [];
  const shape: number[] = [];
  kind.shape.forEach((side, axis) => {
    const item = selection[axis] ?? {};
    if (typeof item !== 'number' && typeof item !== 'object') throw bad(`${String(item)} on axis ${axis}`);
    if (typeof item === 'number') axes.push({ start: position(item, side, axis), step: 1, count: 1 });
    else {
      const range = rangeOf(item, side, axis);
      axes.push(range);
      shape.push(range.count);
    }
  });
  return { axes, shape };
}

function position(item: number, side: number, axis: number): number {
  const at = item < 0 ? item + side : item;
  if (!Number.isInteger(item) || at < 0 || at >= side) throw bad(`${item} on axis ${axis} of length ${side}`);
  return at;
}

function rangeOf(item: { start?: number; stop?: number; step?: number }, side: number, axis: number): Axis {
  const { start = 0, stop = side, step = 1 } = item;
  const whole = [start, stop, step].every((number) => Number.isInteger(number) || Math.abs(number) >= 2 ** 53);
  if (!whole || step < 1) throw bad(`{start: ${start}, stop: ${stop}, step: ${step}} on axis ${axis}`);
  const inside = (at: number): number => Math.min(side, Math.max(0, at < 0 ? at + side : at));
  const [first, last] = [inside(start), inside(stop)];
  return { start: first, step, count: Math.max(0, Math.ceil((last - first) / step)) };
}

/** The positions of storage elements in which the elements of a box are: those of packed dtypes share one. */
export function storageBox(kind: Kind, axes: readonly Axis[]): Axis[] {
  const { packed } = infoOf(kind.dtype);
  return axes.map((axis, i) => {
    if (packed === 1 || i < axes.length - 1) return axis;
    const start = Math.floor(axis.start / packed);
    return { start, step: 1, count: Math.ceil((axis.start + (axis.count - 1) * axis.step + 1) / packed) - start };
  });
}

/** What of a box lies in one chunk along an axis: `count` positions from the `first` of the box, at `offset` in the chunk. */
export interface Touched {
  readonly chunk: number;
  readonly first: number;
  readonly count: number;
  readonly offset: number;
}

function touched({ start, step, count }: Axis, side: number, first: number): Touched {
  const at = start + first * step;
  const chunk = Math.floor(at / side);
  const next = Math.min(count, Math.ceil(((chunk + 1) * side - start) / step));
  return { chunk, first, count: next - first, offset: at - chunk * side };
}

/** One after another the chunks that a box touches: of each, what is touched along each axis. */
export function* chunksOf(axes: readonly Axis[], grid: readonly number[]): Generator<Touched[]> {
  const at = axes.map((axis, i) => touched(axis, grid[i]!, 0));
  for (;;) {
    yield [...at];
    let axis = axes.length - 1;
    while (axis >= 0 && at[axis]!.first + at[axis]!.count >= axes[axis]!.count) axis--;
    if (axis < 0) return;
    at[axis] = touched(axes[axis]!, grid[axis]!, at[axis]!.first + at[axis]!.count);
    for (let later = axis + 1; later < axes.length; later++) at[later] = touched(axes[later]!, grid[later]!, 0);
  }
}

/** The number of a chunk in C order of the grid. */
export function chunkNumber({ chunkCounts }: Kind, at: readonly number[]): number {
  return chunkCounts.reduce((number, count, axis) => number * count + at[axis]!, 0);
}

/** Where a chunk is in the grid. */
export function chunkAt({ chunkCounts }: Kind, number: number): number[] {
  const at: number[] = [];
  let rest = number;
  for (let axis = chunkCounts.length - 1; axis >= 0; axis--) {
    at.unshift(rest % chunkCounts[axis]!);
    rest = Math.floor(rest / chunkCounts[axis]!);
  }
  return at;
}

/**
 * The rows of bytes that go from a chunk to the result, in ascending order of both. A row is `units` runs of `unit` bytes,
 * which begin `stride` bytes apart in the chunk and follow each other in the result.
 */
export class Rows {
  readonly unit: number;
  readonly units: number;
  readonly stride: number;
  /** Where the present row begins in the chunk and in the result. */
  source = 0;
  target = 0;
  done = false;
  readonly #outer: { count: number; source: number; target: number; at: number }[] = [];

  constructor(axes: readonly Axis[], at: readonly Touched[], grid: readonly number[], size: number) {
    let [source, target] = [size, size]; // bytes from one position to the next on the axis
    let [unit, units, stride] = [size, 1, size];
    let inner = true; // whether all axes so far are one run of bytes in both
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      const { step, count: whole } = axes[axis]!;
      const { count, offset, first } = at[axis]!;
      this.source += offset * source;
      this.target += first * target;
      if (inner && step === 1) unit *= count;
      else if (inner && axis === axes.length - 1) [units, stride] = [count, step * source];
      else this.#outer.push({ count, source: step * source, target, at: 0 });
      inner &&= step === 1 && count === grid[axis] && count === whole;
      source *= grid[axis]!;
      target *= whole;
    }
    [this.unit, this.units, this.stride] = [unit, units, stride];
  }

  /** Bytes from the first of a row to its last. */
  get extent(): number {
    return (this.units - 1) * this.stride + this.unit;
  }

  /** Bytes of a row in the result. */
  get bytes(): number {
    return this.units * this.unit;
  }

  next(): void {
    for (const axis of this.#outer) {
      this.source += axis.source;
      this.target += axis.target;
      if (++axis.at < axis.count) return;
      this.source -= axis.count * axis.source;
      this.target -= axis.count * axis.target;
      axis.at = 0;
    }
    this.done = true;
  }

  /** Copy what of the present row lies in `piece`, which begins at byte `start` of the chunk; whether that is its end. */
  copy(piece: Uint8Array, start: number, out: Uint8Array): boolean {
    const { source, target, unit, units, stride } = this;
    const end = start + piece.length;
    if (units === 1) {
      const [from, to] = [Math.max(source, start), Math.min(source + unit, end)];
      if (from < to) out.set(piece.subarray(from - start, to - start), target + from - source);
      return source + unit <= end;
    }
    const first = Math.max(0, Math.ceil((start - source) / stride));
    const last = Math.min(units, Math.ceil((end - source) / stride)); // elements do not lie across blocks
    for (let i = first, from = source + first * stride - start, to = target + first * unit; i < last; i++, from += stride, to += unit) {
      for (let byte = 0; byte < unit; byte++) out[to + byte] = piece[from + byte]!;
    }
    return last === units;
  }
}
