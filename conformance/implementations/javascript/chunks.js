// Where the chunks lie: chunk tables, parts and their placement (section 7).

import { createHash } from 'node:crypto';
import { need } from './faults.js';
import { DIGEST_SIZE, bin, isPath, map, orNil, str, uint } from './manifest.js';
import { decode } from './msgpack.js';

const TABLE = map({ tensor: orNil(bin), chunk: orNil(bin), offset: orNil(bin), length: bin, digest: bin });
const REFERENCE = map({ path: str, length: uint, sha256: bin });
const LIMIT = 1 << 30; // bytes of a part manifest [LIM-001]

/** All chunks of a checkpoint. Part manifests are loaded when one of their chunks is wanted [CHK-006]. */
export class Parts {
  #tables = new Map();

  constructor(storage, manifest, tensors) {
    Object.assign(this, { storage, tensors, parts: manifest.get('parts'), digest: manifest.get('digest') });
    this.block = Number(manifest.get('block'));
    this.digestSize = DIGEST_SIZE[this.digest];
    this.packed = storage.record.layout === 'packed';
    this.firsts = [0]; // row of the first chunk of each tensor, in a table that lists all
    for (const tensor of tensors) this.firsts.push(this.firsts.at(-1) + tensor.chunkCount);
    need(this.packed ? this.parts.length : this.parts.length === 1, 'CHK-002', `${this.parts.length} parts`);
    this.parts.forEach((part) => this.#check(part));
    const objects = new Set(this.parts.map((part) => part.get('object')));
    need(objects.size === this.parts.length, 'LAY-004', 'two parts have one object');
    this.runs = this.packed ? this.#placement(manifest.get('placement')) : [];
    this.parts.forEach((part, number) => part.get('chunks').has('path') || this.load(number));
  }

  /** The extent of a chunk: object (null in layout `loose`, where its name says it), offset, length, digests. */
  find(tensor, chunk) {
    let number = 0;
    if (this.packed) {
      const { chunk: first, part, step } = last(this.runs, (run) => compare(run, { tensor, chunk }) <= 0);
      number = part + (chunk - first) * step;
    }
    return this.load(number).extent(tensor, chunk);
  }

  /** The chunk table of a part, checked. */
  load(number) {
    if (!this.#tables.has(number)) {
      const part = this.parts[number];
      let table = part.get('chunks');
      if (table.has('path')) {
        const [path, length] = [table.get('path'), Number(table.get('length'))];
        const bytes = this.storage.read(path, 0, length + 1);
        const good = bytes.length === length && createHash('sha256').update(bytes).digest().equals(table.get('sha256'));
        need(good, 'CHK-006', `${path} has another length or sha256`, 'manifest-digest');
        table = decode(bytes);
        need(TABLE(table), 'MAN-002', `${path} is no chunk table`);
      }
      this.#tables.set(number, new Table(this, table, part, number));
    }
    return this.#tables.get(number);
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

  /** The rows of `placement` [CHK-008]. */
  #placement(columns) {
    const names = { tensor: 4, chunk: 8, count: 8, part: 4, step: 4 };
    const values = Object.entries(names).map(([name, width]) => column(columns.get(name), width));
    need(new Set(values.map((one) => one.length)).size === 1, 'CHK-008', 'the columns of `placement` differ in length');
    const refuse = (holds) => need(holds, 'CHK-008', '`placement` does not cover every chunk once and in order');
    let [tensor, next] = [0, 0]; // the chunk that has to come
    const skip = () => {
      for (; tensor < this.tensors.length && next === this.tensors[tensor].chunkCount; next = 0) tensor++;
    };
    const runs = [];
    for (let row = 0; row < values[0].length; row++) {
      skip();
      const [index, chunk, count, part, step] = values.map((one) => one[row]);
      refuse(index === tensor && chunk === next && tensor < this.tensors.length && count >= 1);
      next += count;
      refuse(next <= this.tensors[tensor].chunkCount && part + (count - 1) * step < this.parts.length);
      runs.push({ tensor: index, chunk, count, part, step });
    }
    skip();
    refuse(tensor === this.tensors.length);
    return runs;
  }

  /** Whether `placement` gives a chunk to a part, and how many it gives to it. */
  places(part, tensor, chunk) {
    const run = last(this.runs, (one) => compare(one, { tensor, chunk }) <= 0);
    return run !== undefined && run.part + (chunk - run.chunk) * run.step === part;
  }

  placed(part) {
    return this.runs.reduce((sum, { count, part: first, step }) => {
      if (step === 0) return sum + (part === first ? count : 0);
      const i = (part - first) / step;
      return sum + (Number.isInteger(i) && i >= 0 && i < count ? 1 : 0);
    }, 0);
  }
}

/** A chunk table, its columns as arrays of numbers. A number that is too large to be exact fails a check here. */
class Table {
  constructor(parts, table, part, number) {
    const { tensors, firsts, block, digestSize } = parts;
    const [tensor, chunk, offset, length] = ['tensor', 'chunk', 'offset', 'length'].map((key) => table.get(key));
    need((tensor === null) === (chunk === null), 'MAN-002', '`tensor` and `chunk` are both nil or both bin');
    need((offset === null) === (part.get('object') === null), 'MAN-002', '`offset` is nil exactly where `object` is');
    need(parts.packed || tensor === null, 'CHK-002', 'the one table lists every chunk');
    const columns = [tensor && column(tensor, 4), chunk && column(chunk, 8), offset && column(offset, 8)];
    Object.assign(this, { firsts, digestSize, block, name: part.get('object'), digests: table.get('digest') });
    [this.tensor, this.chunk, this.offset, this.length] = [...columns, column(length, 8)];
    const rows = this.length.length;
    need(columns.every((one) => one === null || one.length === rows), 'CHK-001', 'the columns differ in length');
    need(tensor || rows === firsts.at(-1), 'CHK-002', `${rows} rows for ${firsts.at(-1)} chunks`);
    need(!parts.packed || rows === parts.placed(number), 'CHK-008', `part ${number} has other chunks than placed`);
    const limit = this.name === '' ? parts.storage.record.offset : Number(part.get('size') ?? Infinity);
    this.blocks = new Float64Array(rows + 1); // number of the first block of each row
    for (let row = 0, owner = 0; row < rows; row++) {
      if (tensor) {
        owner = this.tensor[row];
        need(owner < tensors.length && this.chunk[row] < tensors[owner].chunkCount, 'CHK-004', 'no such chunk');
        need(row === 0 || compare(this.#at(row - 1), this.#at(row)) < 0, 'CHK-003', 'rows are not sorted');
      } else {
        while (row >= firsts[owner + 1]) owner++;
      }
      const placed = !parts.packed || parts.places(number, owner, tensor ? this.chunk[row] : row - firsts[owner]);
      need(placed, 'CHK-008', `a chunk of part ${number} is placed elsewhere`);
      const { name, codec, chunkSize } = tensors[owner];
      const size = this.length[row];
      const inside = size > 0 && (this.offset?.[row] ?? 0) + size <= limit;
      need(inside, 'CHK-005', `a chunk of ${name} lies outside its object`, 'bad-extent');
      need(codec || size === chunkSize, 'ZARR-007', `a raw chunk of ${name} has ${size} bytes`, 'bad-extent');
      this.blocks[row + 1] = this.blocks[row] + Math.ceil(size / block);
    }
    need(this.blocks[rows] * digestSize === this.digests.length, 'CHK-001', 'the digests are not one for each block');
    if (this.offset) this.#checkOverlap();
  }

  extent(tensor, chunk) {
    const row = this.tensor === null ? this.firsts[tensor] + chunk : this.#row(tensor, chunk);
    const digests = this.digests.subarray(this.blocks[row] * this.digestSize, this.blocks[row + 1] * this.digestSize);
    return { object: this.name, offset: this.offset?.[row] ?? 0, length: this.length[row], digests };
  }

  /** [offset, length] of every chunk. */
  extents() {
    return Array.from(this.offset, (offset, row) => [offset, this.length[row]]);
  }

  #at(row) {
    return { tensor: this.tensor[row], chunk: this.chunk[row] };
  }

  #row(tensor, chunk) {
    return lastIndex(this.length.length, (row) => compare(this.#at(row), { tensor, chunk }) <= 0);
  }

  #checkOverlap() {
    const order = Float64Array.from(this.length.keys()).sort((a, b) => this.offset[a] - this.offset[b]);
    for (let i = 1; i < order.length; i++) {
      const apart = this.offset[order[i - 1]] + this.length[order[i - 1]] <= this.offset[order[i]];
      need(apart, 'CHK-005', 'two chunks overlap', 'bad-extent');
    }
  }
}

/** A column of u32 or u64, as numbers. */
function column(bytes, width) {
  need(bytes.length % width === 0, 'CHK-001', `a column of ${bytes.length} bytes`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float64Array(bytes.length / width);
  for (let i = 0, at = 0; i < values.length; i++, at += width) {
    values[i] = data.getUint32(at, true) + (width === 8 ? data.getUint32(at + 4, true) * 2 ** 32 : 0);
  }
  return values;
}

const compare = (one, two) => one.tensor - two.tensor || one.chunk - two.chunk;
const last = (items, holds) => items[lastIndex(items.length, (i) => holds(items[i]))];

/** The last of the indices below `count` for which a condition holds that holds for none after the first failure. */
function lastIndex(count, holds) {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
