// Pages of tensors (section 7.1): names, kinds and chunk tables of some thousand tensors each.

import type { Source } from './api.js';
import { column, latin1 } from './bytes.js';
import { firstsOf, ownerOf, type ChunkTable, type Extent, type Holder } from './chunk_table.js';
import { wholeTable, type Chunks } from './chunks.js';
import { DIGEST_SIZE, type Algorithm } from './digests.js';
import { CkptError, need } from './errors.js';
import { bin, list, map, str, uint } from './forms.js';
import type { Limits } from './limits.js';
import type { Manifest } from './manifest.js';
import { decode, type Item, type ItemMap } from './msgpack.js';
import { isPath } from './names.js';
import { Pages } from './pages.js';
import type { Record } from './record.js';
import { Spec, kindsOf, type Kind } from './specs.js';

const KINDS = map({ dtype: list(str), shape: list(list(uint)), grid: list(list(uint)), codec: list(uint) });
const PAGE = map({ name: bin, kinds: KINDS, kind: bin, chunks: map({}) });

/** What one page says of its tensors. */
export interface TensorPage {
  readonly names: readonly string[];
  readonly kinds: readonly Kind[];
  /** For each tensor its row of `kinds`. */
  readonly rows: Float64Array;
  readonly firsts: Float64Array;
  readonly table: ChunkTable;
}

/** All tensors of a paged manifest, and their chunks. */
export class TensorPages implements Chunks {
  readonly pages: Pages;
  readonly digest: Algorithm;
  readonly block: number;
  /** Name of the first tensor of each page, and the number of it among all; of all tensors at its end. */
  readonly first: readonly string[];
  readonly starts: Float64Array;
  readonly holders: readonly Holder[];
  readonly #chunks: Float64Array;
  readonly #loaded = new Map<number, Promise<TensorPage>>();
  readonly #ready = new Map<number, TensorPage>();

  constructor(source: Source, readonly manifest: Manifest, record: Record, limits: Limits) {
    this.pages = new Pages(source, manifest.keys.get('pages') as ItemMap, record, limits);
    [this.digest, this.block] = [manifest.digest, manifest.block];
    this.holders = holdersOf(manifest, this.pages);
    const tensors = manifest.keys.get('tensors') as ItemMap;
    this.first = tensors.get('first') as string[];
    const [counts, chunks] = [tensors.get('count') as Uint8Array, tensors.get('chunks') as Uint8Array];
    const even = counts.length === 8 * this.first.length && chunks.length === counts.length;
    need(even && this.first.length <= this.pages.count, 'PAGE-004', 'the columns of `tensors` differ, or say too much');
    const sorted = this.first.every((name, i) => i === 0 || this.first[i - 1]! < name); // of ASCII, as page by page shows
    need(sorted, 'PAGE-005', 'pages are not in the order of their first names');
    const count = column(counts, 8);
    const some = count.every((held, i) => held > 0 && held <= this.pages.lengths[i]!);
    need(some, 'PAGE-004', 'a page without tensors, or with more than it has bytes for');
    this.#chunks = column(chunks, 8);
    need(this.#chunks.reduce((sum, one) => sum + one, 0) < 2 ** 62, 'LIM-006', 'there are 2⁶² chunks or more');
    this.starts = new Float64Array(this.first.length + 1);
    count.forEach((held, i) => { this.starts[i + 1] = this.starts[i]! + held; });
  }

  get length(): number {
    return this.starts[this.first.length]!;
  }

  get tableCount(): number {
    return this.first.length;
  }

  pageOf(index: number): number {
    return ownerOf(this.starts, index);
  }

  /** The page that has a name, if any has. */
  pageOfName(name: string): number | undefined {
    let [low, high] = [0, this.first.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.first[middle]! <= name) low = middle;
      else high = middle;
    }
    return this.first.length > 0 && this.first[low]! <= name ? low : undefined;
  }

  /** The spec of a tensor in a page that has been loaded. */
  specOf(index: number): Spec {
    const number = this.pageOf(index);
    return this.specIn(this.#ready.get(number)!, number, index);
  }

  specIn({ kinds, rows, names }: TensorPage, page: number, index: number): Spec {
    const row = index - this.starts[page]!;
    return new Spec(kinds[rows[row]!]!, index, names[row]!);
  }

  async extent({ index }: Spec, chunk: number, signal?: AbortSignal): Promise<Extent> {
    const number = this.pageOf(index);
    const { table, firsts } = await this.page(number, signal);
    return table.extent(firsts[index - this.starts[number]!]! + chunk);
  }

  tablesOf({ index }: Spec): { table: number; first: number }[] {
    const table = this.pageOf(index);
    return [{ table, first: this.#ready.get(table)!.firsts[index - this.starts[table]!]! }];
  }

  async table(number: number, signal?: AbortSignal): Promise<ChunkTable> {
    return (await this.page(number, signal)).table;
  }

  page(number: number, signal?: AbortSignal): Promise<TensorPage> {
    let page = this.#loaded.get(number);
    if (page === undefined) {
      page = this.pages.bytes(number, signal).then((bytes) => this.#parse(number, bytes));
      this.#keep(number, page);
    }
    return page;
  }

  /** Load all pages, with as few requests as is sensible. */
  async loadAll(signal?: AbortSignal): Promise<TensorPage[]> {
    const missing = this.first.some((_, number) => !this.#loaded.has(number));
    if (missing) {
      const all = await this.pages.run(0, this.first.length, signal);
      all.forEach((bytes, number) => this.#keep(number, Promise.resolve().then(() => this.#parse(number, bytes))));
    }
    return Promise.all(this.first.map((_, number) => this.page(number, signal)));
  }

  #keep(number: number, page: Promise<TensorPage>): void {
    this.#loaded.set(number, page);
    page.then((ready) => this.#ready.set(number, ready), () => this.#loaded.delete(number)); // a failed one is tried anew
  }

  /** What a page shows by itself [PAGE-009]. */
  #parse(number: number, bytes: Uint8Array): TensorPage {
    const page: Item = decode(bytes);
    need(PAGE(page), 'PAGE-004', `page ${number} lacks a key, or has one of another type`);
    const names = this.#names(number, latin1(page.get('name') as Uint8Array));
    const kind = page.get('kind') as Uint8Array;
    const rows = column(kind, 4);
    const kinds = kindsOf(page.get('kinds') as ItemMap, this.manifest.chains);
    const good = kind.length === 4 * names.length && rows.every((row) => row < kinds.length);
    need(good, 'PAGE-004', `page ${number} does not say of each tensor what it is like`);
    const own = Array.from(rows, (row) => kinds[row]!);
    const firsts = firstsOf(own);
    need(firsts.at(-1) === this.#chunks[number], 'PAGE-004', `page ${number} has another number of chunks`);
    const held = this.manifest.layout === 'packed' ? this.#held(number, page.get('part')) : undefined;
    const part = {
      holders: this.holders, kinds: own, firsts, block: this.block, digestSize: DIGEST_SIZE[this.digest], ...(held && { held }),
    };
    return { names, kinds, rows, firsts, table: wholeTable(part, page.get('chunks') as ItemMap) };
  }

  /** For each chunk of a page the number of its part [PAGE-017]. */
  #held(number: number, numbers: Item | undefined): Float64Array {
    const good = bin(numbers) && numbers.length === 4 * this.#chunks[number]!;
    need(good, 'PAGE-017', `page ${number} does not say of each chunk in which part it is`);
    const held = column(numbers as Uint8Array, 4);
    need(held.every((part) => part < this.holders.length), 'PAGE-017', `page ${number} names a part that is not there`);
    return held;
  }

  #names(number: number, text: string): string[] {
    const names = text.split('\n');
    const count = this.starts[number + 1]! - this.starts[number]!;
    need(names.pop() === '' && names.length === count, 'PAGE-004', `page ${number} has other names`);
    const legal = names.every((name) => (name === '' ? this.length === 1 : isPath(name)));
    need(legal, 'NAME-006', `page ${number} has an illegal name`);
    const next = this.first[number + 1];
    const sorted = names.every((name, i) => i === 0 || names[i - 1]! < name)
      && names[0] === this.first[number] && (next === undefined || names.at(-1)! < next);
    if (!sorted) throw new CkptError('bad-manifest', `the names of page ${number} are not in order, or not where they belong [PAGE-005]`);
    return names;
  }
}

/** What the chunks of a paged checkpoint are in. [PAGE-001] [PAGE-017] */
function holdersOf({ layout, digest, keys }: Manifest, { object, offset }: Pages): Holder[] {
  const parts = keys.get('parts') as ItemMap[];
  need((parts.length > 0) === (layout === 'packed'), 'PAGE-001', `${parts.length} parts in layout ${layout}`);
  if (layout !== 'packed') return [layout === 'file' ? { object: '', limit: offset } : { object: null, limit: 2 ** 63 }];
  const holders = parts.map((part): Holder => {
    const [name, size, frame] = [part.get('object') as string, Number(part.get('size')), part.get('frame') as Uint8Array];
    need(isPath(name) && name !== object, 'CHK-007', `a part with the object ${JSON.stringify(name.slice(0, 100))}`);
    need(size < 2 ** 63, 'MAN-011', 'a pack of 2⁶³ bytes or more');
    need(frame.length === DIGEST_SIZE[digest], 'MAN-002', 'a frame digest of another size');
    return { object: name, limit: size };
  });
  need(new Set(holders.map((one) => one.object)).size === parts.length, 'LAY-004', 'two parts have one object');
  return holders;
}
