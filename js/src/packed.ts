// Layout `packed` (sections 7 and 8): many parts, each with some of the chunks, and their placement.

import type { Source } from './api.js';
import { column, isEqual } from './bytes.js';
import { ChunkTable, firstsOf, isTable, type Extent } from './chunk_table.js';
import { wholeTable, type Chunks } from './chunks.js';
import { DIGEST_SIZE, digestOf, type Algorithm } from './digests.js';
import { need } from './errors.js';
import { bin, map, str, uint } from './forms.js';
import { checkManifest, type Limits } from './limits.js';
import type { Manifest } from './manifest.js';
import { decode, type Item, type ItemMap } from './msgpack.js';
import { isPath } from './names.js';
import type { Spec } from './specs.js';

const REFERENCE = map({ path: str, length: uint, sha256: bin });
const END = 2n ** 63n; // sizes and lengths are below it [MAN-011]

/** Some chunks of one tensor, the i-th of them in part `part + i · step`; `first` is the number of the first among all. */
interface Run {
  readonly first: number;
  readonly count: number;
  readonly part: number;
  readonly step: number;
}

/** All chunks of a packed checkpoint. Part manifests are loaded when one of their chunks is wanted [CHK-006]. */
export class PackedChunks implements Chunks {
  readonly digest: Algorithm;
  readonly block: number;
  readonly parts: readonly ItemMap[];
  readonly #firsts: Float64Array;
  readonly #runs: readonly Run[];
  readonly #counts: Float64Array; // of chunks in each part
  readonly #tables = new Map<number, Promise<ChunkTable>>();

  private constructor(
    readonly source: Source, manifest: Manifest, readonly specs: readonly Spec[], readonly limits: Limits,
  ) {
    [this.digest, this.block] = [manifest.digest, manifest.block];
    this.parts = manifest.keys.get('parts') as ItemMap[];
    need(this.parts.length > 0, 'CHK-002', 'no parts');
    this.parts.forEach((part) => this.#checkPart(part));
    const objects = new Set(this.parts.map((part) => part.get('object')));
    need(objects.size === this.parts.length, 'LAY-004', 'two parts have one object');
    const paths = this.parts.map((part) => (part.get('chunks') as ItemMap).get('path')).filter(str);
    const apart = new Set([...objects, ...paths]).size === objects.size + paths.length;
    need(apart, 'CHK-009', 'two part manifests have one path, or one has that of an object');
    this.#firsts = firstsOf(specs);
    this.#runs = this.#placement(manifest.keys.get('placement') as ItemMap);
    this.#counts = countsOf(this.#runs, this.parts.length);
  }

  /** With every table that stands inline checked. */
  static async open(source: Source, manifest: Manifest, specs: readonly Spec[], limits: Limits): Promise<PackedChunks> {
    const chunks = new PackedChunks(source, manifest, specs, limits);
    for (const [number, part] of chunks.parts.entries()) {
      if (!(part.get('chunks') as ItemMap).has('path')) await chunks.table(number);
    }
    return chunks;
  }

  get tableCount(): number {
    return this.parts.length;
  }

  async extent(spec: Spec, chunk: number, signal?: AbortSignal): Promise<Extent> {
    const number = this.#firsts[spec.index]! + chunk;
    return (await this.table(this.#partOf(number), signal)).extent(number);
  }

  tablesOf({ index, chunkCount }: Spec): { table: number; first: number }[] {
    const first = this.#firsts[index]!;
    const tables = new Set<number>();
    for (const run of this.#runs) {
      if (run.first >= first + chunkCount || run.first + run.count <= first) continue;
      for (let i = 0; i < (run.step === 0 ? 1 : run.count); i++) tables.add(run.part + i * run.step);
    }
    return [...tables].map((table) => ({ table, first }));
  }

  /** The table of a part; what failed is tried anew when it is asked for again. */
  table(number: number, signal?: AbortSignal): Promise<ChunkTable> {
    let table = this.#tables.get(number);
    if (table === undefined) {
      table = this.#load(number, signal);
      this.#tables.set(number, table);
      table.catch(() => this.#tables.delete(number));
    }
    return table;
  }

  async #load(index: number, signal?: AbortSignal): Promise<ChunkTable> {
    const part = this.parts[index]!;
    let columns = part.get('chunks') as ItemMap;
    if (columns.has('path')) columns = await this.#manifest(columns, signal);
    need(isTable(columns), 'MAN-002', 'a chunk table lacks a column, or has another type');
    const limit = Number(part.get('size'));
    const digestSize = DIGEST_SIZE[this.digest];
    const checks = {
      holders: [{ object: part.get('object') as string, limit }], kinds: this.specs, firsts: this.#firsts, block: this.block, digestSize,
    };
    const numbers = this.#numbers(columns);
    const table = numbers === undefined ? wholeTable(checks, columns) : new ChunkTable(checks, columns, numbers);
    const placed = table.rows === this.#counts[index]
      && (numbers === undefined || numbers.every((number) => this.#partOf(number) === index));
    need(placed, 'CHK-008', `part ${index} has other chunks than \`placement\` says`);
    return table;
  }

  async #manifest(reference: ItemMap, signal?: AbortSignal): Promise<ItemMap> {
    const [path, length] = [reference.get('path') as string, Number(reference.get('length'))];
    checkManifest(length, this.limits.manifest, path, 'LIM-009');
    const bytes = await this.source.read(path, 0, length + 1, signal);
    const right = bytes.length === length && isEqual((await digestOf('sha256'))(bytes), reference.get('sha256') as Uint8Array);
    need(right, 'CHK-006', `${path} has another length or sha256`, 'manifest-digest');
    const table: Item = decode(bytes);
    need(table instanceof Map, 'MAN-002', `${path} is no chunk table`);
    return table;
  }

  /** The numbers of the chunks of the rows, ascending; undefined if it is every chunk. [CHK-003] [CHK-004] */
  #numbers(columns: ItemMap): Float64Array | undefined {
    if (columns.get('tensor') === null) return undefined;
    need(columns.get('chunk') !== null, 'CHK-011', '`chunk` alone is nil');
    const [tensorBytes, chunkBytes] = [columns.get('tensor') as Uint8Array, columns.get('chunk') as Uint8Array];
    const rows = (columns.get('length') as Uint8Array).length / 8;
    need(tensorBytes.length === 4 * rows && chunkBytes.length === 8 * rows, 'CHK-001', 'the columns differ in length');
    const [tensors, chunks] = [column(tensorBytes, 4), column(chunkBytes, 8)];
    const there = tensors.every((tensor, row) => tensor < this.specs.length && chunks[row]! < this.specs[tensor]!.chunkCount);
    need(there, 'CHK-004', 'a row names a chunk that is not there');
    const numbers = tensors.map((tensor, row) => this.#firsts[tensor]! + chunks[row]!);
    need(numbers.every((number, row) => row === 0 || numbers[row - 1]! < number), 'CHK-003', 'rows are not sorted');
    return numbers;
  }

  #checkPart(part: ItemMap): void {
    const [name, size, frame] = ['object', 'size', 'frame'].map((key) => part.get(key));
    const good = str(name) && isPath(name) && uint(size) && bin(frame) && frame.length === DIGEST_SIZE[this.digest];
    need(good, 'MAN-002', 'object, size or frame of a part do not fit the layout');
    need((size as number) < END, 'MAN-011', 'a pack of 2⁶³ bytes or more');
    const chunks = part.get('chunks') as ItemMap;
    if (!chunks.has('path')) return;
    const fits = REFERENCE(chunks) && isPath(chunks.get('path') as string) && (chunks.get('sha256') as Uint8Array).length === 32;
    need(fits, 'CHK-007', 'the reference to a part manifest does not fit');
    need((chunks.get('length') as number) < END, 'MAN-011', 'a part manifest of 2⁶³ bytes or more');
  }

  /** The rows of `placement` [CHK-008]. */
  #placement(columns: ItemMap): Run[] {
    const whole = (['tensor', 'chunk', 'count', 'part', 'step'] as const).map((key) => columns.get(key) as Uint8Array);
    const [tensors, starts, counts, parts, steps] = whole.map((bytes, i) => column(bytes, i === 1 || i === 2 ? 8 : 4)) as
      [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
    const even = whole.every((bytes, i) => bytes.length === tensors.length * (i === 1 || i === 2 ? 8 : 4));
    need(even, 'CHK-008', 'the columns of `placement` differ in length');
    let next = 0;
    const runs = Array.from(tensors, (tensor, row): Run => {
      const [chunk, count, part, step] = [starts[row]!, counts[row]!, parts[row]!, steps[row]!];
      const first = this.#firsts[tensor]! + chunk;
      const inside = tensor < this.specs.length && count >= 1 && chunk + count <= this.specs[tensor]!.chunkCount;
      const good = inside && first === next && part + (count - 1) * step < this.parts.length;
      need(good, 'CHK-008', '`placement` does not cover every chunk once and in order');
      next += count;
      return { first, count, part, step };
    });
    need(next === this.#firsts.at(-1), 'CHK-008', '`placement` does not cover every chunk');
    return runs;
  }

  #partOf(number: number): number {
    let [low, high] = [0, this.#runs.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#runs[middle]!.first <= number) low = middle;
      else high = middle;
    }
    const { first, part, step } = this.#runs[low]!;
    return part + (number - first) * step;
  }
}

/** How many chunks runs give to each part; for all parts at once, as each asks. [LIM-007] */
function countsOf(runs: readonly Run[], parts: number): Float64Array {
  const counts = new Float64Array(parts);
  for (const [step, alike] of groupsOf(runs)) {
    if (step === 0) for (const { part, count } of alike) counts[part]! += count;
    else if (alike.reduce((sum, { count }) => sum + count, 0) <= parts) {
      for (const { part, count } of alike) for (let i = 0; i < count; i++) counts[part + i * step]! += 1;
    } else addSteps(counts, alike, step);
  }
  return counts;
}

/** The step of a run of one chunk means nothing. */
function groupsOf(runs: readonly Run[]): Map<number, Run[]> {
  const groups = new Map<number, Run[]>();
  for (const run of runs) {
    const step = run.count > 1 ? run.step : 0;
    const group = groups.get(step);
    if (group === undefined) groups.set(step, [run]);
    else group.push(run);
  }
  return groups;
}

/** By where runs begin and end, summed in strides: they may be many and long. */
function addSteps(counts: Float64Array, runs: readonly Run[], step: number): void {
  const changes = new Float64Array(counts.length + step);
  for (const { part, count } of runs) {
    changes[part]! += 1;
    changes[part + count * step]! -= 1;
  }
  for (let part = 0; part < counts.length; part++) {
    if (part >= step) changes[part]! += changes[part - step]!;
    counts[part]! += changes[part]!;
  }
}
