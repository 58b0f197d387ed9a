// The elements of a tensor, or of a slice of it.

import type { Source } from './api.js';
import { Chunk, type BlockSource } from './blocks.js';
import type { Chunks } from './chunks.js';
import { infoOf, repacked } from './dtypes.js';
import { inBase, need } from './errors.js';
import { Rows, chunkNumber, chunksOf, storageBox, type Axis, type Box, type Touched } from './grid.js';
import { allocate, checkExpansion, type Limits } from './limits.js';
import type { Patch } from './patch.js';
import type { Spec } from './specs.js';

const AT_ONCE = 4; // chunks that are read at a time
const UNSEEN = 256 * 2 ** 20; // bytes that are allocated before anyone has looked whether the objects are there

/** What reads need to know of an open checkpoint. */
export interface Reading {
  readonly source: Source;
  readonly chunks: Chunks;
  readonly limits: Limits;
  readonly verify: boolean;
  readonly patch: Patch | undefined;
  label(spec: Spec): string;
}

export interface How {
  readonly verify?: boolean;
  readonly signal?: AbortSignal;
}

/** Elements as one raw chunk without padding would hold them: C order, little-endian, packed; unused bits are 0. */
export async function readBytes(reading: Reading, spec: Spec, box: Box, how: How = {}): Promise<Uint8Array> {
  originOf(reading, spec); // without a base it is refused, also where there is nothing to be read
  return repackedAs(spec, box, (axes) => made(reading, spec, axes, how));
}

/** The same of what is stored here, which in a patch may be differences: the chunks alone, without the base. */
export async function readStored(reading: Reading, spec: Spec, box: Box, how: How): Promise<Uint8Array> {
  return repackedAs(spec, box, (axes) => gathered(reading, spec, axes, how));
}

async function repackedAs(spec: Spec, box: Box, elements: (axes: readonly Axis[]) => Promise<Uint8Array>): Promise<Uint8Array> {
  if (box.axes.some(({ count }) => count === 0)) return new Uint8Array(0);
  const exact = spec.shape.every(Number.isSafeInteger);
  need(exact, 'LIM-010', `a tensor of shape ${spec.sides}`, 'limit-exceeded');
  const info = infoOf(spec.dtype);
  const axes = storageBox(spec, box.axes);
  const data = await elements(axes);
  if (info.bits === 8 * info.size) return data;
  const row = axes.at(-1)?.count ?? 1;
  const { start, step, count } = box.axes.at(-1) ?? { start: 0, step: 1, count: 1 };
  const first = info.packed === 1 ? 0 : start % info.packed;
  return info.packed === 1 ? repacked(data, 1, 0, 1, 1, info) : repacked(data, row, first, step, count, info);
}

/** Of a patch's tensor that is not whole the one of the base that it is made of; throws `missing-base`. [PATCH-004] */
export function originOf(reading: Reading, spec: Spec): { reading: Reading; spec: Spec } | undefined {
  if (spec.form === 'whole') return undefined;
  const source = reading.patch!.sourceOf(spec);
  if (source === undefined) throw reading.patch!.missing(reading.label(spec));
  return { reading: source.base.reading, spec: source.base.tensors.spec(source.index) };
}

/** Storage elements at the positions of each axis; of a patch those that come of the base. [PATCH-006] */
async function made(reading: Reading, spec: Spec, axes: readonly Axis[], how: How): Promise<Uint8Array> {
  const origin = originOf(reading, spec);
  if (origin === undefined) return gathered(reading, spec, axes, how);
  const waiting = spec.form === 'xor' ? gathered(reading, spec, axes, how) : undefined;
  waiting?.catch(() => undefined); // told when it is its turn
  const data = await inBase(origin.reading.source.label, () => made(origin.reading, origin.spec, axes, how));
  const differences = await waiting;
  if (differences !== undefined) for (let i = 0; i < data.length; i++) data[i]! ^= differences[i]!;
  return data;
}

/** Storage elements, as they are stored here. */
async function gathered(reading: Reading, spec: Spec, axes: readonly Axis[], how: How): Promise<Uint8Array> {
  const { size } = infoOf(spec.dtype);
  const { source, chunks, verify } = reading;
  const length = axes.reduce((product, { count }) => product * count, size);
  const from: BlockSource = {
    source, digest: chunks.digest, block: chunks.block, verify: how.verify ?? verify, signal: how.signal,
    label: (one) => reading.label(one),
  };
  const chunkAt = async (at: readonly Touched[]): Promise<Chunk> => {
    const numbers = at.map(({ chunk }) => chunk);
    const number = chunkNumber(spec, numbers);
    return new Chunk(from, spec, number, numbers, await chunks.extent(spec, number, how.signal));
  };
  if (spec.codec !== undefined || length > UNSEEN) await admit(reading, spec, axes, length, chunkAt, how);
  const out = allocate(length);
  await together(chunksOf(axes, spec.grid), AT_ONCE, async (at) => {
    const chunk = await chunkAt(at);
    const target = spec.dtype === 'bool' ? new Bools(chunk, out) : undefined;
    await chunk.copy(() => new Rows(axes, at, spec.grid, size), out);
    target?.check(axes, at);
  });
  return out;
}

/** Before much is allocated: what is said to be there is there [LIM-003], and does not stand for far more [LIM-008]. */
async function admit(
  reading: Reading, spec: Spec, axes: readonly Axis[], length: number,
  chunkAt: (at: readonly Touched[]) => Promise<Chunk>, how: How,
): Promise<void> {
  const sizes = new Map<string, number>();
  let [decoded, stored, there] = [0, 0, 0];
  let short: Chunk | undefined;
  for (const at of chunksOf(axes, spec.grid)) {
    const chunk = await chunkAt(at);
    const { object, extent } = chunk;
    if (!sizes.has(object)) sizes.set(object, await reading.source.size(object, how.signal).catch(() => 0));
    const found = Math.min(extent.length, Math.max(0, sizes.get(object)! - extent.offset));
    decoded += spec.chunkSize;
    stored += extent.length;
    there += found;
    if (found < extent.length) short ??= chunk;
  }
  const hollow = short !== undefined && (spec.codec !== undefined || there < length);
  if (hollow) await short!.blockAt(short!.blocks - 1); // which throws what is wrong with it
  if (spec.codec !== undefined) checkExpansion(decoded, stored, reading.limits);
}

/** The elements of a bool tensor that a chunk gives have to be 0 or 1 [DTYPE-005]. */
class Bools {
  constructor(readonly chunk: Chunk, readonly out: Uint8Array) {}

  check(axes: readonly Axis[], at: readonly Touched[]): void {
    const whole = axes.map(({ count }) => count);
    const rows = new Rows(at.map(({ first, count }) => ({ start: first, step: 1, count })), at.map(
      ({ first, count }) => ({ chunk: 0, first: 0, count, offset: first })), whole, 1);
    for (; !rows.done; rows.next()) {
      for (let i = rows.source; i < rows.source + rows.unit; i++) {
        if (this.out[i]! > 1) throw this.chunk.fault('bad-chunk', `a bool is ${this.out[i]}, neither 0 nor 1 [DTYPE-005]`);
      }
    }
  }
}

/** Do something with each item, some at a time; the error of the first item that has one is thrown, when all have ended. */
export async function together<T>(items: Iterable<T>, count: number, action: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const failed: { number: number; error: unknown }[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (failed.length === 0) {
      const number = next++;
      const item = iterator.next();
      if (item.done === true) return;
      await action(item.value).catch((error: unknown) => failed.push({ number, error }));
    }
  };
  await Promise.all(Array.from({ length: count }, work));
  const [first] = failed.sort((one, two) => one.number - two.number);
  if (first !== undefined) throw first.error;
}
