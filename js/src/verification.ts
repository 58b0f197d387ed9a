// Whole verification [BLK-007]: every block, every chunk, every part manifest, every page, every frame (section 9).

import type { Damage, Source, VerifyOptions } from './api.js';
import { isEqual } from './bytes.js';
import { Chunk, type BlockSource } from './blocks.js';
import { checkApart, ownerOf, sorted, type ChunkTable, type Span } from './chunk_table.js';
import { newHasher } from './digests.js';
import { CkptError, need } from './errors.js';
import { chunkAt, type Box } from './grid.js';
import { infoOf } from './dtypes.js';
import { FACTOR } from './limits.js';
import type { Manifest } from './manifest.js';
import type { ItemMap } from './msgpack.js';
import { nameOf } from './names.js';
import { hasPlainKeys, pathOfTrail } from './nodes.js';
import type { Record } from './record.js';
import { originOf, readStored, type Reading } from './reading.js';
import { checkFingerprint, type Spec } from './specs.js';
import type { TensorPages } from './tensor_pages.js';
import type { Tree } from './tree.js';
import { WindowSource } from './window.js';

const PIECE = 4 * 2 ** 20; // bytes of a frame that are read at a time

/** What a whole verification looks at. */
export interface Verified {
  readonly reading: Reading;
  readonly manifest: Manifest;
  readonly record: Record;
  readonly specs: readonly Spec[] | TensorPages;
  readonly tree: Tree;
}

/** Tells how far a verification is, in bytes. */
class Progress {
  #done = 0;

  constructor(readonly total: number, readonly told: VerifyOptions['onProgress']) {}

  add(bytes: number): void {
    this.#done += bytes;
    this.told?.({ done: Math.min(this.#done, this.total), total: this.total });
  }
}

/** What of a checkpoint has been looked at before its chunks: tables of them, and pages. */
interface Begun {
  readonly verified: Verified;
  readonly damage: Damage[];
  /** Of each table whether nothing is wrong with it. */
  readonly sound: readonly boolean[];
  /** Whether it is known where all chunks are. */
  readonly isKnown: boolean;
  /** Bytes of chunks. */
  readonly total: number;
}

/** All damage of a checkpoint; of a patch also of what it is read through, which follows it in `chain`. [PATCH-016] */
export async function verifyWhole(chain: readonly Verified[], options: VerifyOptions): Promise<Damage[]> {
  const { signal } = options;
  const begun: Begun[] = [];
  for (const verified of chain) begun.push(await begin(verified, signal));
  const progress = new Progress(begun.reduce((sum, { total }) => sum + total, 0), options.onProgress);
  for (const one of begun) await verifyRest(one, progress, signal);
  return begun.flatMap(({ damage, verified }, i) => (i === 0 ? damage : damage.map((one) => one.inBase(verified.reading.source.label))));
}

async function begin(verified: Verified, signal?: AbortSignal): Promise<Begun> {
  const { specs, record } = verified;
  const reading = record.layout === 'loose' ? verified.reading // chunks are objects of their own
    : { ...verified.reading, source: new WindowSource(verified.reading.source) };
  const damage: Damage[] = [];
  const sound: boolean[] = [];
  for (let number = 0; number < reading.chunks.tableCount; number++) {
    sound.push(await collect(damage, () => reading.chunks.table(number, signal)));
  }
  const pages = Array.isArray(specs) ? undefined : specs as TensorPages;
  const isKnown = pages === undefined || await verifyPages(verified, pages, sound, damage, signal);
  return { verified: { ...verified, reading }, damage, sound, isKnown, total: await totalOf(reading, sound, signal) };
}

async function verifyRest({ verified, damage, sound, isKnown }: Begun, progress: Progress, signal?: AbortSignal): Promise<void> {
  const { reading, specs } = verified;
  for (const [number, good] of sound.entries()) {
    if (!good) continue;
    const table = await reading.chunks.table(number, signal);
    await verifyRows(reading, table, 0, table.rows, await ownersOf(specs, number), damage, progress, signal);
  }
  await verifyFrames(verified, sound, isKnown, damage, signal);
}

/** All damage of one tensor, in a patch also of what it is made of. */
export async function verifyTensor(reading: Reading, spec: Spec, options: VerifyOptions): Promise<Damage[]> {
  const chain = [{ reading, spec }];
  for (let one = originOf(reading, spec); one !== undefined; one = originOf(one.reading, one.spec)) chain.push(one);
  const progress = new Progress(chain.reduce((sum, one) => sum + one.spec.chunkCount * one.spec.chunkSize, 0), options.onProgress);
  const all: Damage[] = [];
  for (const [i, one] of chain.entries()) {
    const damage = await damageOf(one.reading, one.spec, progress, options.signal);
    all.push(...(i === 0 ? damage : damage.map((error) => error.inBase(one.reading.source.label))));
  }
  return all;
}

async function damageOf(reading: Reading, spec: Spec, progress: Progress, signal?: AbortSignal): Promise<Damage[]> {
  const damage: Damage[] = [];
  for (const { table: number, first } of reading.chunks.tablesOf(spec)) {
    await collect(damage, async () => {
      const table = await reading.chunks.table(number, signal);
      const [start, stop] = [table.rowFrom(first), table.rowFrom(first + spec.chunkCount)];
      await verifyRows(reading, table, start, stop, () => spec, damage, progress, signal);
    });
  }
  return damage;
}

/** The spec of a tensor by its number in a table. */
type Owners = (number: number) => Spec;

async function ownersOf(specs: readonly Spec[] | TensorPages, table: number): Promise<Owners> {
  if (Array.isArray(specs)) return (number) => (specs as readonly Spec[])[number]!;
  const pages = specs as TensorPages;
  const page = await pages.page(table);
  return (number) => pages.specIn(page, table, pages.starts[table]! + number);
}

/** Every chunk of some rows of a table. */
async function verifyRows(
  reading: Reading, table: ChunkTable, start: number, stop: number, owners: Owners, damage: Damage[], progress: Progress,
  signal?: AbortSignal,
): Promise<void> {
  const from: BlockSource = {
    source: reading.source, digest: reading.chunks.digest, block: reading.chunks.block, verify: true, signal,
    label: (one) => reading.label(one),
  };
  const { firsts } = table.part;
  for (const row of table.rowsByOffset(start, stop)) {
    const number = table.numberOf(row);
    const owner = ownerOf(firsts, number);
    const spec = owners(owner);
    const at = chunkAt(spec, number - firsts[owner]!);
    const extent = table.extent(number);
    const chunk = new Chunk(from, spec, number - firsts[owner]!, at, extent);
    await verifyChunk(reading, chunk, { axes: regionOf(spec, at), shape: [] }, damage, signal);
    progress.add(extent.length);
  }
}

/** Run an action, and add the fault that it meets to `damage`; whether it met none. */
async function collect(damage: Damage[], action: () => Promise<unknown>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof CkptError)) throw error;
    damage.push(error);
    return false;
  }
}

async function totalOf({ chunks }: Reading, sound: readonly boolean[], signal?: AbortSignal): Promise<number> {
  let total = 0;
  for (const [number, good] of sound.entries()) {
    if (good) total += (await chunks.table(number, signal)).lengths.reduce((sum, length) => sum + length, 0);
  }
  return total;
}

/** The specs of all tensors, but of pages that are damaged. */
async function* specsOf(specs: readonly Spec[] | TensorPages, sound: readonly boolean[]): AsyncGenerator<Spec> {
  if (Array.isArray(specs)) {
    yield* specs as Spec[];
    return;
  }
  const pages = specs as TensorPages;
  for (const [number, good] of sound.entries()) {
    if (!good) continue;
    const page = await pages.page(number);
    for (let index = pages.starts[number]!; index < pages.starts[number + 1]!; index++) yield pages.specIn(page, number, index);
  }
}

async function verifyChunk(reading: Reading, chunk: Chunk, box: Box, damage: Damage[], signal?: AbortSignal): Promise<void> {
  const { spec, extent, object } = chunk;
  let sound = true;
  for (let block = 0; block < chunk.blocks; block++) {
    sound = await collect(damage, () => chunk.blockAt(block)) && sound;
    if (!sound && damage.at(-1)!.code !== 'block-digest') return; // the object is missing, short or behind a link
  }
  const size = extent.object === null ? await reading.source.size(object, signal) : extent.length;
  if (size > extent.length) damage.push(chunk.fault('bad-extent', `${object} is longer than its chunk [LAY-003]`));
  const decodes = sound && size === extent.length && (spec.codec !== undefined || spec.dtype === 'bool');
  if (decodes) await collect(damage, () => readStored(reading, spec, box, { verify: false, ...(signal && { signal }) }));
}

/** The elements of a tensor that a chunk holds. */
function regionOf({ grid, dtype, shape }: Spec, at: readonly number[]): Box['axes'] {
  return at.map((number, axis) => {
    const side = grid[axis]! * (axis === at.length - 1 ? infoOf(dtype).packed : 1);
    return { start: number * side, step: 1, count: Math.min((number + 1) * side, shape[axis]!) - number * side };
  });
}

/** Every page of the tree, and what shows only when all pages are there [PAGE-009]; whether the place of all chunks is known. */
async function verifyPages(
  { manifest, reading, tree }: Verified, tensors: TensorPages, sound: readonly boolean[], damage: Damage[],
  signal?: AbortSignal,
): Promise<boolean> {
  const known = sound.every(Boolean);
  let whole = known;
  for (let number = sound.length; number < tensors.pages.count; number++) {
    whole = await collect(damage, () => tensors.pages.item(number, signal)) && whole;
  }
  if (!whole) return known;
  await collect(damage, async () => {
    const value = await tree.whole(signal);
    const specs: Spec[] = [];
    for await (const spec of specsOf(tensors, sound)) specs.push(spec);
    for (const { index, name } of specs) {
      const path = pathOfTrail(tree.paths.get(index)!);
      need(nameOf(path) === name, 'PAGE-005', `the tensor at ${path.join('/')} is named ${name}`);
    }
    need(hasPlainKeys(value) === manifest.keys.get('plain_keys'), 'PAGE-008', '`plain_keys` is not as the keys are');
    await checkFingerprint(manifest.schema, specs);
  });
  return collect(damage, async () => {
    for (const { object } of tensors.holders) if (object !== null) checkApart(sorted(await spansIn(reading, object, sound.keys(), signal)));
  });
}

/** Where the chunks of some tables lie in an object. */
async function spansIn({ chunks }: Reading, object: string, tables: Iterable<number>, signal?: AbortSignal): Promise<Span[]> {
  const spans: Span[] = [];
  for (const number of tables) for (const span of (await chunks.table(number, signal)).extents(object)) spans.push(span);
  return spans;
}

// ---- frames (section 9)

async function verifyFrames(
  { reading, manifest, record, specs }: Verified, sound: readonly boolean[], isKnown: boolean, damage: Damage[], signal?: AbortSignal,
): Promise<void> {
  const { source } = reading;
  const tensors = Array.isArray(specs) ? undefined : specs as TensorPages;
  const check = async (pieces: AsyncIterable<Uint8Array>, wanted: Uint8Array, what: string): Promise<void> => {
    const hasher = await newHasher(manifest.digest);
    for await (const bytes of pieces) hasher.update(bytes);
    need(isEqual(hasher.digest('binary'), wanted), 'FRM-004', `${what} has changed outside its chunks`, 'frame-digest');
  };
  await collect(damage, async () => {
    if (record.layout === 'packed') await check(nothing(), record.frame, 'COMMIT'); // [FRM-003] [FRM-005]
    else if (!isKnown) return; // [FRM-007]
    else if (record.layout === 'loose') await check(nodeDocuments(source, specsOf(specs, sound), signal), record.frame, 'a node document'); // [FRM-002]
    else { // [FRM-001]
      const skipped: Span[] = [[record.offset, record.length], [await source.size('', signal) - record.size, record.size]];
      if (tensors !== undefined) skipped.push([tensors.pages.offset, tensors.pages.end - tensors.pages.offset]);
      await check(outside(reading, '', [...sound.keys()], skipped, signal), record.frame, 'the file');
    }
  });
  if (tensors !== undefined && record.layout !== 'file') {
    const { object, end } = tensors.pages;
    await collect(damage, async () => {
      need(await source.size(object, signal) <= end, 'PAGE-002', `${object} is longer than its pages`, 'bad-extent');
    });
  }
  const parts = record.layout === 'packed' ? manifest.keys.get('parts') as ItemMap[] : [];
  for (const [number, part] of parts.entries()) {
    await collect(damage, async () => {
      const [name, size] = [part.get('object') as string, Number(part.get('size'))];
      need(await source.size(name, signal) === size, 'LAY-007', `${name} has not the size of its part`, 'bad-extent');
      const tables = tensors === undefined ? [number] : [...sound.keys()];
      if (isKnown && tables.every((table) => sound[table])) {
        await check(outside(reading, name, tables, [[size, 0]], signal), part.get('frame') as Uint8Array, name);
      }
    });
  }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** The bytes of an object but for chunks of some tables and what is skipped besides. */
async function* outside(
  reading: Reading, object: string, tables: readonly number[], skipped: Span[], signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { source } = reading;
  const holes = [...skipped];
  for (const span of await spansIn(reading, object, tables, signal)) holes.push(span);
  let position = 0;
  for (const [offset, length] of sorted(holes)) {
    for (; position < offset; position = Math.min(position + PIECE, offset)) {
      yield await source.read(object, position, Math.min(PIECE, offset - position), signal);
    }
    position = Math.max(position, offset + length);
  }
}

/** The documents of arrays, the groups above them and the root, by path [ZARR-001]; one that is gone is empty. */
async function* nodeDocuments(source: Source, specs: AsyncIterable<Spec>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const names = await groupsOf(specs);
  for (const path of [...names].map((name) => `tensors/${name && `${name}/`}zarr.json`).sort()) {
    try {
      const size = await source.size(path, signal);
      for (let at = 0; at < size; at += PIECE) yield await source.read(path, at, Math.min(PIECE, size - at), signal);
    } catch (error) {
      if (!(error instanceof CkptError) || error.code !== 'missing-object') throw error;
    }
  }
}

/** The names of all nodes. They may be far longer together than those of the tensors. [LIM-007] */
async function groupsOf(specs: AsyncIterable<Spec>): Promise<Set<string>> {
  const names = new Set(['']);
  let room = 64 * 2 ** 20;
  for await (const { name } of specs) {
    room += FACTOR * name.length;
    for (let at = name.length; at > 0; at = name.lastIndexOf('/', at - 1)) {
      room -= at;
      need(room >= 0, 'LIM-007', 'the names of tensors imply groups without end', 'limit-exceeded');
      names.add(name.slice(0, at));
    }
  }
  return names;
}
