// Where the chunks lie: chunk tables and parts (section 7), as in layouts `file` and `loose`: one part, whose table lists
// every chunk.
//
// A chunk has a number among all chunks: tensors in their order, the chunks of each in C order. `firsts` has the number of
// the first chunk of each tensor, and of all chunks at its end.

import { need } from './faults.js';
import { DIGEST_SIZE, bin, map, orNil } from './manifest.js';

export const TABLE = map({ tensor: orNil(bin), chunk: orNil(bin), offset: orNil(bin), length: bin, digest: bin });

/** All chunks of a checkpoint. */
export class Parts {
  #loaded = new Map();

  constructor(storage, manifest, tensors) {
    Object.assign(this, { storage, tensors, parts: manifest.get('parts'), digest: manifest.get('digest') });
    this.block = Number(manifest.get('block'));
    this.digestSize = DIGEST_SIZE[this.digest];
    this.firsts = [0];
    for (const { chunkCount } of tensors) this.firsts.push(this.firsts.at(-1) + chunkCount);
    need(this.firsts.at(-1) < 2 ** 62, 'LIM-006', 'there are 2⁶² chunks or more');
    this.check(manifest);
    this.parts.forEach((part, index) => part.get('chunks').has('path') || this.load(index));
  }

  /** The extent of a chunk: object (null in layout `loose`, where its name says it), offset, length, digests. */
  find(tensor, chunk) {
    const number = this.firsts[tensor] + chunk;
    return this.load(this.partOf(number)).get(number);
  }

  /** The extents of a part by the numbers of their chunks, checked. */
  load(index) {
    if (!this.#loaded.has(index)) this.#loaded.set(index, this.#extents(this.table(index), index));
    return this.#loaded.get(index);
  }

  // ---- what layout `packed` has in another way

  check() {
    need(this.parts.length === 1, 'CHK-002', `${this.parts.length} parts`);
    const [part] = this.parts;
    const object = this.storage.record.layout === 'file' ? '' : null;
    const good = part.get('object') === object && part.get('size') === null && part.get('frame') === null;
    need(good, 'MAN-002', 'object, size or frame of the part do not fit the layout');
    need(!part.get('chunks').has('path'), 'CHK-009', 'a reference to a part manifest');
    need(TABLE(part.get('chunks')), 'MAN-002', 'a chunk table lacks a column, or has another type');
  }

  /** Where the chunks of a file end. */
  limit() {
    return this.storage.record.offset;
  }

  partOf() {
    return 0;
  }

  table(index) {
    return this.parts[index].get('chunks');
  }

  /** The number of the chunk of each row. */
  numbers(index, table, rows) {
    need(table.get('tensor') === null, 'CHK-002', 'the one table lists every chunk');
    need(rows === this.firsts.at(-1), 'CHK-002', `${rows} rows`);
    return Array.from({ length: rows }, (_, row) => row);
  }

  // ----

  /** A number that is too large to be exact fails a check here. */
  #extents(table, index) {
    const part = this.parts[index];
    const [object, offset, digest] = [part.get('object'), table.get('offset'), table.get('digest')];
    need((table.get('tensor') === null) === (table.get('chunk') === null), 'MAN-002', '`tensor` or `chunk` alone is nil');
    need((offset === null) === (object === null), 'MAN-002', '`offset` is nil exactly where `object` is');
    const lengths = column(table.get('length'), 8);
    const numbers = this.numbers(index, table, lengths.length);
    const offsets = offset ? column(offset, 8) : lengths.map(() => 0);
    need(offsets.length === lengths.length, 'CHK-001', 'the columns differ in length');
    const limit = object === '' ? this.limit() : Number(part.get('size') ?? Infinity);
    const extents = new Map();
    let [owner, at] = [0, 0];
    lengths.forEach((length, row) => {
      while (numbers[row] >= this.firsts[owner + 1]) owner++;
      const { name, codec, chunkSize } = this.tensors[owner];
      const inside = length > 0 && offsets[row] + length <= limit;
      need(inside, 'CHK-005', `a chunk of ${name} lies outside its object`, 'bad-extent');
      need(codec || length === chunkSize, 'ZARR-007', `a raw chunk of ${name} has ${length} bytes`, 'bad-extent');
      const digests = digest.subarray(at, at += Math.ceil(length / this.block) * this.digestSize);
      extents.set(numbers[row], { object, offset: offsets[row], length, digests });
    });
    need(at === digest.length, 'CHK-001', 'the digests are not one for each block');
    const sorted = object === null ? [] : [...extents.values()].sort((one, two) => one.offset - two.offset);
    const apart = sorted.every(({ offset: start }, i) => i === 0 || sorted[i - 1].offset + sorted[i - 1].length <= start);
    need(apart, 'CHK-005', 'two chunks overlap', 'bad-extent');
    return extents;
  }
}

/** A column of u32 or u64, as numbers. */
export function column(bytes, width) {
  need(bytes.length % width === 0, 'CHK-001', `a column of ${bytes.length} bytes`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({ length: bytes.length / width }, (_, i) => (
    width === 4 ? data.getUint32(4 * i, true) : data.getUint32(8 * i, true) + data.getUint32(8 * i + 4, true) * 2 ** 32));
}
