// Where the chunks of a checkpoint are: in layouts `file` and `loose` the one part lists all of them, inline.

import { ChunkTable, firstsOf, isTable, type Extent, type Part } from './chunk_table.js';
import { DIGEST_SIZE, type Algorithm } from './digests.js';
import { need } from './errors.js';
import type { Manifest } from './manifest.js';
import type { ItemMap } from './msgpack.js';
import type { Record } from './record.js';
import type { Spec } from './specs.js';

/** All chunks of a checkpoint, by tensor and number in C order of its grid. */
export interface Chunks {
  readonly digest: Algorithm;
  readonly block: number;
  /** Tables of chunks: one, one for each pack, or one for each page of tensors. */
  readonly tableCount: number;
  table(number: number, signal?: AbortSignal): Promise<ChunkTable>;
  extent(spec: Spec, chunk: number, signal?: AbortSignal): Promise<Extent>;
  /** The tables that chunks of a tensor are in, and the number of its first chunk in each. */
  tablesOf(spec: Spec): { table: number; first: number }[];
}

/** A table that lists every chunk of some tensors: tensors in their order, chunks in C order. [CHK-002] */
export function wholeTable(part: Part, columns: ItemMap): ChunkTable {
  need(isTable(columns), 'MAN-002', 'a chunk table lacks a column, or has another type');
  need(columns.get('tensor') === null, 'CHK-002', 'the one table lists every chunk');
  const rows = (columns.get('length') as Uint8Array).length / 8;
  need(rows === part.firsts.at(-1), 'CHK-002', `${rows} rows for ${part.firsts.at(-1)} chunks`);
  return new ChunkTable(part, columns, undefined);
}

export class InlineChunks implements Chunks {
  readonly digest: Algorithm;
  readonly block: number;
  readonly tableCount = 1;
  readonly #table: ChunkTable;
  readonly #firsts: Float64Array;

  constructor(manifest: Manifest, record: Record, specs: readonly Spec[]) {
    const { digest, block, layout } = manifest;
    [this.digest, this.block] = [digest, block];
    const parts = manifest.keys.get('parts') as ItemMap[];
    need(parts.length === 1, 'CHK-002', `${parts.length} parts`);
    const part = parts[0]!;
    const object = layout === 'file' ? '' : null;
    const good = part.get('object') === object && part.get('size') === null && part.get('frame') === null;
    need(good, 'MAN-002', 'object, size or frame of the part do not fit the layout');
    const chunks = part.get('chunks') as ItemMap;
    need(!chunks.has('path'), 'CHK-009', 'a reference to a part manifest');
    const limit = object === '' ? record.offset : 2 ** 63;
    const firsts = firstsOf(specs);
    this.#table = wholeTable({ holders: [{ object, limit }], kinds: specs, firsts, block, digestSize: DIGEST_SIZE[digest] }, chunks);
    this.#firsts = firsts;
  }

  async table(): Promise<ChunkTable> {
    return this.#table;
  }

  async extent(spec: Spec, chunk: number): Promise<Extent> {
    return this.#table.extent(this.#firsts[spec.index]! + chunk);
  }

  tablesOf({ index }: Spec): { table: number; first: number }[] {
    return [{ table: 0, first: this.#firsts[index]! }];
  }
}
