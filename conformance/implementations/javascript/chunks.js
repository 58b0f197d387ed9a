// Where the chunks lie: chunk tables, parts and their placement (section 7).
//
// A chunk has a number among all chunks: tensors in their order, the chunks of each in C order. `firsts` has the number of
// the first chunk of each tensor, and of all chunks at its end.

import { createHash } from 'node:crypto';
import { need } from './faults.js';
import { DIGEST_SIZE, bin, isPath, map, orNil, str, uint } from './manifest.js';
import { decode } from './msgpack.js';

const TABLE = map({ tensor: orNil(bin), chunk: orNil(bin), offset: orNil(bin), length: bin, digest: bin });
const REFERENCE = map({ path: str, length: uint, sha256: bin });
const PLACEMENT = Object.entries({ tensor: 4, chunk: 8, count: 8, part: 4, step: 4 }); // bytes of a value
const LIMIT = 1 << 30; // bytes of a part manifest [LIM-001]

/** All chunks of a checkpoint. Part manifests are loaded when one of their chunks is wanted [CHK-006]. */
export class Parts {
  #loaded = new Map();

  constructor(storage, manifest, tensors) {
    Object.assign(this, { storage, tensors, parts: manifest.get('parts'), digest: manifest.get('digest') });
    this.block = Number(manifest.get('block'));
    this.digestSize = DIGEST_SIZE[this.digest];
    this.packed = storage.record.layout === 'packed';
    this.firsts = [0];
    for (const { chunkCount } of tensors) this.firsts.push(this.firsts.at(-1) + chunkCount);
    need(this.firsts.at(-1) < 2 ** 62, 'LIM-006', 'there are 2⁶² chunks or more');
    need(this.packed ? this.parts.length : this.parts.length === 1, 'CHK-002', `${this.parts.length} parts`);
    this.parts.forEach((part) => this.#check(part));
    const objects = new Set(this.parts.map((part) => part.get('object')));
    need(objects.size === this.parts.length, 'LAY-004', 'two parts have one object');
    this.runs = this.packed ? this.#placement(manifest.get('placement')) : [];
    this.parts.forEach((part, index) => part.get('chunks').has('path') || this.load(index));
  }

  /** The extent of a chunk: object (null in layout `loose`, where its name says it), offset, length, digests. */
  find(tensor, chunk) {
    const number = this.firsts[tensor] + chunk;
    return this.load(this.packed ? this.#partOf(number) : 0).get(number);
  }

  /** The extents of a part by the numbers of their chunks, checked. */
  load(index) {
    if (!this.#loaded.has(index)) {
      let table = this.parts[index].get('chunks');
      if (table.has('path')) {
        const [path, length] = [table.get('path'), Number(table.get('length'))];
        const bytes = this.storage.read(path, 0, length + 1);
        const good = bytes.length === length && createHash('sha256').update(bytes).digest().equals(table.get('sha256'));
        need(good, 'CHK-006', `${path} has another length or sha256`, 'manifest-digest');
        table = decode(bytes);
        need(TABLE(table), 'MAN-002', `${path} is no chunk table`);
      }
      this.#loaded.set(index, this.#extents(table, this.parts[index], index));
    }
    return this.#loaded.get(index);
  }

  /** Form of one part in its layout. */
  #check(part) {
    const [name, size, frame, chunks] = ['object', 'size', 'frame', 'chunks'].map((key) => part.get(key));
    const good = this.packed
      ? str(name) && isPath(name) && size !== null && frame?.length === this.digestSize
      : name === (this.storage.record.layout === 'file' ? '' : null) && size === null && frame === null;
    need(good, 'MAN-002', `object, size or frame of a part do not fit layout ${this.storage.record.layout}`);
    if (!chunks.has('path')) return need(TABLE(chunks), 'MAN-002', 'a chunk table lacks a column, or has another type');
    need(this.packed && REFERENCE(chunks) && isPath(chunks.get('path')) && chunks.get('sha256').length === 32,
      'CHK-007', 'the reference to a part manifest does not fit');
    return need(chunks.get('length') <= LIMIT, 'LIM-001', 'a part manifest above 1 GiB', 'limit-exceeded');
  }

  /** The rows of `placement`, each with the number of its first chunk [CHK-008]. */
  #placement(columns) {
    const values = PLACEMENT.map(([name, width]) => column(columns.get(name), width));
    need(new Set(values.map((one) => one.length)).size === 1, 'CHK-008', 'the columns of `placement` differ in length');
    let next = 0;
    const runs = Array.from(values[0], (tensor, row) => {
      const [, chunk, count, part, step] = values.map((one) => one[row]);
      const first = this.firsts[tensor] + chunk;
      const inside = tensor < this.tensors.length && count >= 1 && chunk + count <= this.tensors[tensor].chunkCount;
      const good = inside && first === next && part + (count - 1) * step < this.parts.length;
      need(good, 'CHK-008', '`placement` does not cover every chunk once and in order');
      next += count;
      return { first, count, part, step };
    });
    need(next === this.firsts.at(-1), 'CHK-008', '`placement` does not cover every chunk');
    return runs;
  }

  /** The part that `placement` gives a chunk to: the last run that does not begin after it is found by bisection. */
  #partOf(number) {
    let [low, high] = [0, this.runs.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.runs[middle].first <= number) low = middle;
      else high = middle;
    }
    const { first, part, step } = this.runs[low];
    return part + (number - first) * step;
  }

  /** How many chunks `placement` gives to a part. */
  #placed(index) {
    return this.runs.reduce((sum, { count, part, step }) => {
      const i = step === 0 ? 0 : (index - part) / step;
      if (step === 0) return sum + (part === index ? count : 0);
      return sum + (Number.isInteger(i) && i >= 0 && i < count ? 1 : 0);
    }, 0);
  }

  /** A number that is too large to be exact fails a check here. */
  #extents(table, part, index) {
    const [tensor, chunk, offset, digest] = ['tensor', 'chunk', 'offset', 'digest'].map((key) => table.get(key));
    const object = part.get('object');
    need((tensor === null) === (chunk === null), 'MAN-002', '`tensor` and `chunk` are both nil or both bin');
    need((offset === null) === (object === null), 'MAN-002', '`offset` is nil exactly where `object` is');
    need(this.packed || tensor === null, 'CHK-002', 'the one table lists every chunk');
    const lengths = column(table.get('length'), 8);
    const numbers = tensor ? this.#numbers(column(tensor, 4), column(chunk, 8)) : lengths.map((_, row) => row);
    const offsets = offset ? column(offset, 8) : lengths.map(() => 0);
    const even = numbers.length === lengths.length && offsets.length === lengths.length;
    need(even, 'CHK-001', 'the columns differ in length');
    need(tensor || lengths.length === this.firsts.at(-1), 'CHK-002', `${lengths.length} rows`);
    const placed = !this.packed
      || (lengths.length === this.#placed(index) && numbers.every((number) => this.#partOf(number) === index));
    need(placed, 'CHK-008', `part ${index} has other chunks than \`placement\` says`);
    const limit = object === '' ? this.storage.record.offset : Number(part.get('size') ?? Infinity);
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

  /** The numbers of chunks that are named, in ascending order [CHK-003] [CHK-004]. */
  #numbers(tensors, chunks) {
    need(tensors.length === chunks.length, 'CHK-001', 'the columns differ in length');
    const there = (tensor, row) => tensor < this.tensors.length && chunks[row] < this.tensors[tensor].chunkCount;
    need(tensors.every(there), 'CHK-004', 'a row names a chunk that is not there');
    const numbers = tensors.map((tensor, row) => this.firsts[tensor] + chunks[row]);
    need(numbers.every((number, row) => row === 0 || numbers[row - 1] < number), 'CHK-003', 'rows are not sorted');
    return numbers;
  }
}

/** A column of u32 or u64, as numbers. */
function column(bytes, width) {
  need(bytes.length % width === 0, 'CHK-001', `a column of ${bytes.length} bytes`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({ length: bytes.length / width }, (_, i) => (
    width === 4 ? data.getUint32(4 * i, true) : data.getUint32(8 * i, true) + data.getUint32(8 * i + 4, true) * 2 ** 32));
}
