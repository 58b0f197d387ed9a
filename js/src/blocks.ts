// The stored bytes of one chunk: its blocks (section 6), and what they decode to.

import type { Source } from './api.js';
import { isEqual } from './bytes.js';
import type { Extent } from './chunk_table.js';
import { decompress } from './codecs.js';
import { DIGEST_SIZE, digestOf, type Algorithm } from './digests.js';
import { CkptError, type Code, type Place } from './errors.js';
import type { Rows } from './grid.js';
import { allocate } from './limits.js';
import type { Spec } from './specs.js';

const AT_ONCE = 4 * 2 ** 20; // bytes of blocks that are read with one request
const AHEAD = 2; // requests that are under way while one is looked at

/** Where blocks are read from, and how. */
export interface BlockSource {
  readonly source: Source;
  readonly digest: Algorithm;
  readonly block: number;
  readonly verify: boolean;
  readonly signal: AbortSignal | undefined;
  /** The label of a tensor's path, for errors. */
  label(spec: Spec): string;
}

/** Blocks that lie one after another: bytes [start, end) of the chunk. */
interface Piece {
  readonly start: number;
  readonly end: number;
}

/** One chunk of a tensor. A block is read and checked when a byte of it is wanted [BLK-004]. */
export class Chunk {
  readonly object: string;

  constructor(readonly from: BlockSource, readonly spec: Spec, readonly number: number, at: readonly number[], readonly extent: Extent) {
    this.object = extent.object ?? ['tensors', ...(spec.name ? [spec.name] : []), 'c', ...at].join('/'); // [LAY-003] [ZARR-003]
  }

  get blocks(): number {
    return Math.ceil(this.extent.length / this.from.block);
  }

  /** Copy rows into `out`; of a raw chunk the blocks are read that hold a byte of them, and no others. [READ-004] */
  async copy(rows: () => Rows, out: Uint8Array): Promise<void> {
    const moving = rows();
    if (this.spec.codec !== undefined) {
      const data = await this.decoded();
      for (; !moving.done; moving.next()) moving.copy(data, 0, out);
      return;
    }
    for await (const [piece, bytes] of this.#pieces(wantedBy(rows(), this.from.block, this.extent.length))) {
      while (!moving.done && moving.source < piece.end && moving.copy(bytes, piece.start, out)) moving.next();
    }
  }

  /** What a compressed chunk decodes to. */
  async decoded(): Promise<Uint8Array> {
    const stored = allocate(this.extent.length);
    for await (const [{ start }, bytes] of this.#pieces([{ start: 0, end: stored.length }])) stored.set(bytes, start);
    const { codec, chunkSize } = this.spec;
    return decompress(codec!, stored, chunkSize, (what) => this.fault('bad-chunk', what));
  }

  /** One block, checked. */
  async blockAt(number: number): Promise<Uint8Array> {
    const start = number * this.from.block;
    return this.#read({ start, end: Math.min(start + this.from.block, this.extent.length) });
  }

  fault(code: Code, message: string, place: Place = {}): CkptError {
    const { number, object, spec } = this;
    const tensor = this.from.label(spec);
    return new CkptError(code, `tensor ${JSON.stringify(tensor)}, chunk ${number}: ${message}`,
      { tensor, chunk: number, object, ...place });
  }

  /** The bytes of spans of blocks, in order, some of them being fetched ahead. */
  async* #pieces(spans: Iterable<Piece>): AsyncGenerator<[Piece, Uint8Array]> {
    const waiting: [Piece, Promise<Uint8Array>][] = [];
    for (const piece of cut(spans, Math.max(1, Math.floor(AT_ONCE / this.from.block)) * this.from.block)) {
      const bytes = this.#read(piece);
      bytes.catch(() => undefined); // told when it is its turn
      waiting.push([piece, bytes]);
      if (waiting.length > AHEAD) yield await taken(waiting);
    }
    while (waiting.length > 0) yield await taken(waiting);
  }

  async #read({ start, end }: Piece): Promise<Uint8Array> {
    const bytes = await this.#fetch(start, end);
    if (this.from.verify) await this.#check(bytes, start);
    if (bytes.length !== end - start) throw this.fault('short-object', `${this.object} ends before the chunk does [READ-005]`);
    return bytes;
  }

  async #fetch(start: number, end: number): Promise<Uint8Array> {
    const { source, signal } = this.from;
    try {
      return await source.read(this.object, this.extent.offset + start, end - start, signal);
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      throw this.fault(error.code, error.what, {});
    }
  }

  /** Check the blocks that are wholly in `bytes`, which begin with one. [BLK-004] [READ-007] */
  async #check(bytes: Uint8Array, start: number): Promise<void> {
    const { block, digest } = this.from;
    const digestBytes = await digestOf(digest);
    const size = DIGEST_SIZE[digest];
    for (let at = 0; at < bytes.length; at += block) {
      const number = (start + at) / block;
      const end = Math.min(at + block, this.extent.length - start);
      if (end > bytes.length) return; // the object ends in this block
      const wanted = this.extent.digests.subarray(number * size, (number + 1) * size);
      if (isEqual(digestBytes(bytes.subarray(at, end)), wanted)) continue;
      const offset = this.extent.offset + start + at;
      throw this.fault('block-digest', `block ${number} at byte ${offset} of ${this.object || 'the file'} has changed`,
        { block: number, offset });
    }
  }
}

async function taken(waiting: [Piece, Promise<Uint8Array>][]): Promise<[Piece, Uint8Array]> {
  const [piece, bytes] = waiting.shift()!;
  return [piece, await bytes];
}

/** The blocks that rows touch, those next to each other as one. */
function* wantedBy(rows: Rows, block: number, length: number): Generator<Piece> {
  let [first, last] = [-1, -2];
  for (; !rows.done; rows.next()) {
    const sparse = rows.stride > block; // else a row touches every block from its first to its last
    for (let unit = 0; unit < (sparse ? rows.units : 1); unit++) {
      const begin = rows.source + unit * rows.stride;
      const [from, to] = [begin, begin + (sparse ? rows.unit : rows.extent) - 1].map((byte) => Math.floor(byte / block)) as [number, number];
      if (from > last + 1) {
        if (first >= 0) yield { start: first * block, end: Math.min((last + 1) * block, length) };
        first = from;
      }
      last = Math.max(last, to);
    }
  }
  if (first >= 0) yield { start: first * block, end: Math.min((last + 1) * block, length) };
}

/** Spans in pieces of at most `size` bytes, a multiple of the block. */
function* cut(spans: Iterable<Piece>, size: number): Generator<Piece> {
  for (const { start, end } of spans) {
    for (let at = start; at < end; at += size) yield { start: at, end: Math.min(at + size, end) };
  }
}
