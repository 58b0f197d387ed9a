// Reading what a view shows, within a bound: all of it, or bands of rows spread over it. What is damaged is left out, and
// told; everything else is shown.

import { bytesTouched, touched } from './cost.js';
import { madeOf, type Elements, type Fault, type ShownTensor } from './shown.js';
import { type Run, type View, isTransposed, lengthOf, lieOf, selectionOf } from './view.js';

/** Most bytes that are read for one look. */
export const LIMIT = 64 * 2 ** 20;
const BANDS = 16; // of a tensor of which not all is read

/** A run of rows, with the elements of some columns of them; without them where they are damaged. */
export interface Band extends Run {
  elements: Elements | null;
}

export interface Look {
  view: View;
  rows: number;
  columns: number;
  /** The columns that were read. */
  across: Run;
  bands: Band[];
  isTransposed: boolean;
  /** Whether every row and column of the view is there, or damaged. */
  isWhole: boolean;
  faults: Fault[];
  /** Bytes of the blocks that were read. */
  bytes: number;
}

/** What of a view is to be read: columns, and runs of rows. Pure. */
export function planned(tensor: ShownTensor, view: View, block: number, limit = LIMIT): { across: Run; runs: Run[]; bytes: number } {
  const { rows, columns } = lieOf(view);
  let across = { first: 0, count: columns };
  const cost = (run: Run): number => bytesTouched(tensor, selectionOf(view, run, across), block);
  if (rows * columns === 0) return { across, runs: [], bytes: 0 };
  const all = { first: 0, count: rows };
  const isMany = rows * columns > limit; // elements take a byte of memory at least
  const whole = cost(all);
  if (whole <= limit && !isMany) return { across, runs: [all], bytes: whole };
  while (across.count > 1 && cost({ first: 0, count: 1 }) > limit / BANDS) across = { first: 0, count: Math.ceil(across.count / 2) };
  while (across.count > 1 && across.count > limit / BANDS) across = { first: 0, count: Math.ceil(across.count / 2) };
  let count = rows;
  const room = limit / BANDS;
  while (count > 1 && (cost({ first: 0, count }) > room || count * across.count > room)) count = Math.ceil(count / 2);
  const bands = Math.min(BANDS, Math.ceil(rows / count));
  const apart = Math.max(count, Math.floor(rows / bands));
  const runs = Array.from({ length: bands }, (_, i) => ({ first: i * apart, count: Math.min(count, rows - i * apart) }))
    .filter((run) => run.count > 0);
  let bytes = 0;
  const kept = runs.filter((run, i) => (bytes += cost(run)) <= limit || i === 0);
  return { across, runs: kept, bytes: Math.min(bytes, limit) };
}

/** Read what a view shows. Throws what is no damage: that the file has changed, or that a server does not answer. */
export async function look(
  tensor: ShownTensor, view: View, block: number,
  { signal, limit = LIMIT, onBlocks }: { signal?: AbortSignal; limit?: number; onBlocks?: (blocks: Set<string>) => void } = {},
): Promise<Look> {
  const { rows, columns } = lieOf(view);
  const { across, runs, bytes } = planned(tensor, view, block, limit);
  const faults: Fault[] = [];
  const bands: Band[] = [];
  for (const run of runs) {
    for await (const band of readBand(tensor, view, run, across, block, signal, faults)) {
      bands.push(band);
      if (band.elements && !tensor.source) onBlocks?.(touched(tensor, selectionOf(view, band, across), block).blocks);
    }
  }
  const read = runs.reduce((sum, { count }) => sum + count, 0);
  const isWhole = read === rows && across.count === columns;
  return { view, rows, columns, across, bands, isTransposed: isTransposed(view), isWhole, faults, bytes };
}

/** The rows of a run; where some are damaged, those before and after them. */
async function* readBand(
  tensor: ShownTensor, view: View, run: Run, across: Run, block: number, signal: AbortSignal | undefined, faults: Fault[],
): AsyncGenerator<Band> {
  try {
    const elements = await tensor.read(selectionOf(view, run, across), signal ? { signal } : {});
    yield { ...run, elements };
  } catch (error) {
    if (!isDamage(error)) throw error;
    faults.push(error);
    const { chunk, block: number, base } = error.place;
    const holder = base === undefined ? tensor : [...madeOf(tensor)].slice(1).find(({ home }) => home === base); // what has the block
    const key = `${chunk}:${holder?.codec === undefined ? number ?? 0 : 0}`;
    const touches = (rows: Run): boolean => holder === undefined || chunk === undefined
      || touched(holder, selectionOf(view, rows, across), holder.block ?? block).blocks.has(key);
    if (!touches(run)) { // as it is not known which rows it is
      yield { ...run, elements: null };
      return;
    }
    for (const part of parted(run, touches)) {
      if (part.isHit) yield { first: part.first, count: part.count, elements: null };
      else yield* readBand(tensor, view, part, across, block, signal, faults);
    }
  }
}

/** A run cut into rows that touch something, and those that do not. */
function parted(run: Run, touches: (rows: Run) => boolean): (Run & { isHit: boolean })[] {
  if (!touches(run)) return [{ ...run, isHit: false }];
  if (run.count === 1) return [{ ...run, isHit: true }];
  const half = Math.ceil(run.count / 2);
  const parts = [...parted({ first: run.first, count: half }, touches), ...parted({ first: run.first + half, count: run.count - half }, touches)];
  return parts.reduce<(Run & { isHit: boolean })[]>((joined, part) => {
    const last = joined.at(-1);
    if (last?.isHit === part.isHit) last.count += part.count;
    else joined.push({ ...part });
    return joined;
  }, []);
}

const DAMAGE = new Set(['block-digest', 'bad-chunk', 'missing-object', 'short-object', 'manifest-digest', 'bad-extent', 'linked-object']);

/** Whether an error says that bytes are damaged, and not that they cannot be had. */
export function isDamage(error: unknown): error is Fault {
  return error instanceof Error && 'code' in error && 'place' in error && DAMAGE.has(String(error.code));
}

/** Position in the array of a band of an element at a row (of the view) and a column (of those that were read). */
export function positionIn(look: Look, band: Run, row: number, column: number): number {
  const r = row - band.first;
  return look.isTransposed ? column * band.count + r : r * look.across.count + column;
}

export function bandAt(look: Look, row: number): Band | undefined {
  return look.bands.find(({ first, count }) => row >= first && row < first + count);
}

/** What is shown of the view, in words; null where it is all of it. */
export function partText(look: Look): string | null {
  if (look.isWhole) return null;
  const read = look.bands.reduce((sum, { count }) => sum + count, 0);
  const first = look.bands[0];
  const rows = read === look.rows ? ''
    : look.bands.length > 1 && first
      ? `${read.toLocaleString('en-US')} of ${look.rows.toLocaleString('en-US')} rows, in bands of ${first.count.toLocaleString('en-US')} spread over all`
      : `rows 0 to ${(read - 1).toLocaleString('en-US')} of ${look.rows.toLocaleString('en-US')}`;
  const columns = look.across.count === look.columns ? ''
    : `columns 0 to ${(look.across.count - 1).toLocaleString('en-US')} of ${look.columns.toLocaleString('en-US')}`;
  return `Shown: ${[rows, columns].filter(Boolean).join(', ')}.`;
}

export const hasElements = (view: View): boolean => view.every((axis) => axis.role === 'fixed' || lengthOf(axis) > 0);
