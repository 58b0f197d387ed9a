// Figures of what was read, and the cells of a heat map. Pure, but that it pauses now and then.

import { pause } from './dom.js';
import { type Look, positionIn } from './look.js';
import type { Elements } from './shown.js';
import { perElement } from './text.js';

const SIDE = 640; // most cells of a heat map along a side
const AT_ONCE = 2 ** 20; // elements between two pauses
export const BINS = 60;

export interface Statistics {
  count: number;
  least: number;
  greatest: number;
  mean: number;
  deviation: number;
  zeros: number;
  nan: number;
  infinite: number;
  /** Least and greatest exactly, of integers. */
  exact: readonly [bigint, bigint] | null;
  /** Of the finite elements, from least to greatest. */
  histogram: Float64Array;
}

/** What a cell of a heat map is: a number, or one of these. */
export const NOT_READ = NaN;
export interface Cells {
  rows: number;
  columns: number;
  /** Rows and columns of the view that a cell stands for. */
  down: number;
  across: number;
  /** The mean of the elements of a cell that are finite; NaN where there is none. */
  mean: Float32Array;
  /** 0: nothing is known of it; 1: shown; 2: has an element that is no finite number; 3: damaged. */
  kind: Uint8Array;
}

/** The number of an element: of a complex one its absolute value. */
export function numberAt({ dtype, data }: Elements, at: number): number {
  if (perElement(dtype) === 2) return Math.hypot(data[2 * at] as number, data[2 * at + 1] as number);
  return Number(data[at]);
}

class Sums {
  count = 0;
  nan = 0;
  infinite = 0;
  zeros = 0;
  least = Infinity;
  greatest = -Infinity;
  mean = 0;
  squares = 0;
  low: bigint | null = null;
  high: bigint | null = null;

  add(value: number): void {
    this.count++;
    if (value !== value) this.nan++;
    else if (value === Infinity || value === -Infinity) this.infinite++;
    else {
      if (value === 0) this.zeros++;
      if (value < this.least) this.least = value;
      if (value > this.greatest) this.greatest = value;
      const off = value - this.mean;
      this.mean += off / (this.count - this.nan - this.infinite);
      this.squares += off * (value - this.mean);
    }
  }

  exactly(value: bigint): void {
    if (this.low === null || value < this.low) this.low = value;
    if (this.high === null || value > this.high) this.high = value;
  }
}

export interface Figures {
  statistics: Statistics;
  cells: Cells;
}

/** Everything that is drawn of a look. `value` is what an element counts as. */
export async function figures(look: Look, value: (elements: Elements, at: number) => number = numberAt, signal?: AbortSignal): Promise<Figures> {
  const cells = emptyCells(look);
  const sums = new Sums();
  const counts = new Uint32Array(cells.mean.length);
  await each(look, signal, (elements, at, cell) => {
    const found = value(elements, at);
    sums.add(found);
    const exact = elements.data[at];
    if (typeof exact === 'bigint') sums.exactly(exact);
    if (found - found === 0) {
      cells.mean[cell]! += found;
      counts[cell]!++;
      if (cells.kind[cell] === 0) cells.kind[cell] = 1;
    } else cells.kind[cell] = 2;
  }, cells);
  for (let cell = 0; cell < counts.length; cell++) cells.mean[cell] = counts[cell] ? cells.mean[cell]! / counts[cell]! : NOT_READ;
  markDamage(look, cells);
  const histogram = new Float64Array(BINS);
  const finite = sums.count - sums.nan - sums.infinite;
  if (finite > 0) {
    const [least, width] = [sums.least, sums.greatest - sums.least];
    const scale = width > 0 && Number.isFinite(width) ? BINS / width : 0;
    await each(look, signal, (elements, at) => {
      const found = value(elements, at);
      if (found - found === 0) histogram[Math.min(BINS - 1, Math.floor((found - least) * scale))]!++;
    });
  }
  const statistics = {
    count: sums.count, least: sums.least, greatest: sums.greatest, zeros: sums.zeros, nan: sums.nan, infinite: sums.infinite,
    mean: finite ? sums.mean : NaN, deviation: finite ? Math.sqrt(sums.squares / finite) : NaN,
    exact: sums.low === null || sums.high === null ? null : [sums.low, sums.high] as const, histogram,
  };
  return { statistics, cells };
}

function emptyCells(look: Look): Cells {
  const [down, across] = [Math.ceil(look.rows / SIDE) || 1, Math.ceil(look.columns / SIDE) || 1];
  const [rows, columns] = [Math.ceil(look.rows / down), Math.ceil(look.columns / across)];
  return { rows, columns, down, across, mean: new Float32Array(rows * columns), kind: new Uint8Array(rows * columns) };
}

function markDamage(look: Look, cells: Cells): void {
  for (const band of look.bands.filter(({ elements }) => elements === null)) {
    const last = Math.floor((band.first + band.count - 1) / cells.down);
    for (let row = Math.floor(band.first / cells.down); row <= last; row++) {
      const across = Math.ceil(look.across.count / cells.across);
      cells.kind.fill(3, row * cells.columns, row * cells.columns + across);
    }
  }
}

/** Go through all elements that were read. */
async function each(look: Look, signal: AbortSignal | undefined, visit: (elements: Elements, at: number, cell: number) => void, cells?: Cells): Promise<void> {
  let since = 0;
  for (const band of look.bands) {
    const { elements } = band;
    if (elements === null) continue;
    for (let row = band.first; row < band.first + band.count; row++) {
      const line = cells ? Math.floor(row / cells.down) * cells.columns : 0;
      const step = look.isTransposed ? band.count : 1;
      let at = positionIn(look, band, row, 0);
      for (let column = 0; column < look.across.count; column++, at += step) {
        visit(elements, at, cells ? line + (cells.across === 1 ? column : Math.floor(column / cells.across)) : 0);
      }
      since += look.across.count;
      if (since > AT_ONCE) {
        since = 0;
        await pause();
        signal?.throwIfAborted();
      }
    }
  }
}

/** Least and greatest of the cells. */
export function endsOf({ mean }: Cells): readonly [number, number] {
  let [least, greatest] = [Infinity, -Infinity];
  for (const value of mean) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return [least, greatest];
}
