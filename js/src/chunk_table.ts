// A chunk table (section 7): where the chunks of one part are, in rows that are sorted by the number of the chunk.
//
// A chunk has a number among all chunks: tensors in their order, the chunks of each in C order. `firsts` has the number of
// the first chunk of each tensor, and of all chunks at its end.

import { column } from './bytes.js';
import { CkptError, need } from './errors.js';
import { bin, map, orNil } from './forms.js';
import type { ItemMap } from './msgpack.js';
import type { Kind } from './specs.js';

/** Where the bytes of a chunk are. */
export interface Extent {
  /** null in layout `loose`: the chunk is an object of its own, whose name says which. */
  readonly object: string | null;
  readonly offset: number;
  readonly length: number;
  /** Of its blocks, one after another. */
  readonly digests: Uint8Array;
}

/** An object that chunks are in, and where the last of them has to end. */
export interface Holder {
  readonly object: string | null;
  readonly limit: number;
}

/** What a table is checked against. */
export interface Part {
  /** What the chunks are in. */
  readonly holders: readonly Holder[];
  /** For each row which of the holders; undefined where there is but one. */
  readonly held?: Float64Array;
  readonly kinds: readonly Kind[];
  readonly firsts: Float64Array;
  readonly block: number;
  readonly digestSize: number;
}

export const isTable = map({ tensor: orNil(bin), chunk: orNil(bin), offset: orNil(bin), length: bin, digest: bin });

/** The number of the first chunk of each tensor, and how many there are. [LIM-006] */
export function firstsOf(kinds: readonly Kind[]): Float64Array {
  const firsts = new Float64Array(kinds.length + 1);
  kinds.forEach(({ chunkCount }, i) => { firsts[i + 1] = firsts[i]! + chunkCount; });
  need(firsts[kinds.length]! < 2 ** 62, 'LIM-006', 'there are 2⁶² chunks or more');
  return firsts;
}

/** The tensor that a chunk is of. */
export function ownerOf(firsts: Float64Array, number: number): number {
  let [low, high] = [0, firsts.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (firsts[middle]! <= number) low = middle;
    else high = middle;
  }
  return low;
}

/** A checked chunk table. */
export class ChunkTable {
  readonly #digests: Uint8Array;
  readonly #starts: Float64Array; // of the digests of each row
  readonly #offsets: Float64Array | undefined;
  readonly lengths: Float64Array;

  /** `numbers` are those of the chunks of the rows, ascending; undefined if they are 0, 1, 2 … */
  constructor(readonly part: Part, columns: ItemMap, readonly numbers: Float64Array | undefined) {
    const { holders, block, digestSize } = part;
    const [offset, length] = [columns.get('offset') as Uint8Array | null, columns.get('length') as Uint8Array];
    need((columns.get('tensor') === null) === (columns.get('chunk') === null), 'CHK-011', '`tensor` or `chunk` alone is nil');
    need((offset === null) === (holders[0]!.object === null), 'CHK-011', '`offset` is nil exactly where `object` is');
    need(length.length % 8 === 0 && (offset === null || offset.length === length.length), 'CHK-001', 'the columns differ in length');
    this.lengths = column(length, 8);
    this.#offsets = offset === null ? undefined : column(offset, 8);
    this.#digests = columns.get('digest') as Uint8Array;
    this.#starts = new Float64Array(this.lengths.length + 1);
    this.#checkExtents();
    for (let row = 0; row < this.lengths.length; row++) {
      this.#starts[row + 1] = this.#starts[row]! + Math.ceil(this.lengths[row]! / block) * digestSize;
    }
    need(this.#starts[this.lengths.length] === this.#digests.length, 'CHK-001', 'the digests are not one for each block');
    for (const { object } of holders) if (object !== null) checkApart(this.extents(object));
  }

  get rows(): number {
    return this.lengths.length;
  }

  numberOf(row: number): number {
    return this.numbers === undefined ? row : this.numbers[row]!;
  }

  /** Some rows, in the order of their chunks in the object. */
  rowsByOffset(start: number, stop: number): Float64Array {
    const rows = Float64Array.from({ length: stop - start }, (_, i) => start + i);
    const [offsets, held] = [this.#offsets, this.part.held];
    if (offsets === undefined) return rows;
    return rows.sort((one, two) => (held === undefined ? 0 : held[one]! - held[two]!) || offsets[one]! - offsets[two]!);
  }

  /** The first row of a chunk with this number or a higher one. */
  rowFrom(number: number): number {
    if (this.numbers === undefined) return Math.min(number, this.rows);
    const row = this.rows === 0 ? 0 : rowOf(this.numbers, number);
    return row < this.rows && this.numbers[row]! < number ? row + 1 : row;
  }

  /** The extent of a chunk that is in this table. */
  extent(number: number): Extent {
    const row = this.numbers === undefined ? number : rowOf(this.numbers, number);
    const digests = this.#digests.subarray(this.#starts[row], this.#starts[row + 1]);
    return { object: this.#holderOf(row).object, offset: this.#offsets?.[row] ?? 0, length: this.lengths[row]!, digests };
  }

  /** Offset and length of each chunk in an object, in the order of their offsets. */
  extents(object: string): Span[] {
    const spans: Span[] = [];
    this.lengths.forEach((length, row) => { if (this.#holderOf(row).object === object) spans.push([this.#offsets?.[row] ?? 0, length]); });
    return sorted(spans);
  }

  #holderOf(row: number): Holder {
    const { holders, held } = this.part;
    return holders[held === undefined ? 0 : held[row]!]!;
  }

  /** Inside its object, not empty, and of a raw chunk the length that it has to have. [CHK-005] */
  #checkExtents(): void {
    const { kinds, firsts } = this.part;
    let owner = 0;
    for (let row = 0; row < this.lengths.length; row++) {
      const number = this.numberOf(row);
      while (number >= firsts[owner + 1]!) owner++;
      const { codec, chunkSize } = kinds[owner]!;
      const [length, offset] = [this.lengths[row]!, this.#offsets?.[row] ?? 0];
      if (length === 0 || offset + length > this.#holderOf(row).limit) throw bad(`chunk ${number} lies outside its object, or is empty [CHK-005]`);
      if (codec === undefined && length !== chunkSize) throw bad(`raw chunk ${number} has ${length} bytes [ZARR-007]`);
    }
  }
}

function bad(what: string): CkptError {
  return new CkptError('bad-extent', what);
}

function rowOf(numbers: Float64Array, number: number): number {
  let [low, high] = [0, numbers.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle]! <= number) low = middle;
    else high = middle;
  }
  return low;
}

/** First byte and length. */
export type Span = readonly [offset: number, length: number];

export function sorted(spans: Span[]): Span[] {
  const isSorted = spans.every(([offset], i) => i === 0 || spans[i - 1]![0] <= offset);
  return isSorted ? spans : spans.sort(([one], [two]) => one - two);
}

/** Refuse spans, in the order of their offsets, that overlap. */
export function checkApart(spans: readonly Span[]): void {
  const apart = spans.every(([offset], i) => i === 0 || spans[i - 1]![0] + spans[i - 1]![1] <= offset);
  if (!apart) throw bad('two chunks overlap [CHK-005]');
}
