// A reader of ckptfmt checkpoints for Node (20.15 or later), written from SPEC.md, without dependencies.
//
//   import { Checkpoint } from './reader.js';
//   const checkpoint = new Checkpoint('model.ckpt');
//   checkpoint.tree                                       // plain values, and a Tensor where a tensor stands
//   checkpoint.read(checkpoint.at(['w']))                 // its bytes: C order, little-endian, packed as in section 3
//   checkpoint.read(checkpoint.at(['w']), [[0, 2, 1]])    // reads the blocks that hold these rows, and no others
//
// Every byte that is given has been checked against its digest.

import { createHash } from 'node:crypto';
import { Chunk } from './chunk.js';
import { Parts } from './chunks.js';
import { Fault, Unsupported, need } from './faults.js';
import {
  DTYPES, Tensor, chainsOf, checkBody, checkFingerprint, checkHead, checkRequired, checkSchema, isPaged, tensorsOf,
} from './manifest.js';
import { Float, decode } from './msgpack.js';
import { PackedParts } from './packed.js';
import { PagedTree, TensorPages } from './pages.js';
import { Storage } from './storage.js';
import { Complex, Scalar, Tree, Tuple } from './tree.js';

export { Complex, Fault, Float, Scalar, Tensor, Tuple, Unsupported };

const LIMIT = 2 ** 30; // bytes of a manifest [LIM-001]

/** An open checkpoint. Throws Fault, or Unsupported for what this reader lacks. */
export class Checkpoint {
  #tree;

  constructor(path) {
    this.storage = new Storage(path);
    try {
      this.#open();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Record, version, manifest and its sha256, what it requires, the rest [READ-001]; no chunk [READ-002]. */
  #open() {
    const { isFolder } = this.storage;
    const record = this.storage.record = this.storage.findRecord();
    const name = isFolder ? 'manifest.msgpack' : '';
    const whole = !isFolder || this.storage.size(name) === record.length;
    need(whole, 'COM-003', `${name} has another length`, 'manifest-digest');
    need(record.length <= LIMIT, 'LIM-001', `a manifest of ${record.length} bytes`, 'limit-exceeded');
    const bytes = this.storage.read(name, record.offset, record.length);
    const right = createHash('sha256').update(bytes).digest('hex') === record.sha256;
    need(right, 'COM-003', 'the manifest has another sha256', 'manifest-digest');
    checkRequired(bytes);
    const manifest = decode(bytes);
    checkHead(manifest, record);
    checkBody(manifest, record.frame);
    const schema = manifest.get('schema');
    this.schema = schema && { id: schema.get('id'), version: schema.get('version') };
    checkSchema(schema);
    this.manifest = manifest;
    this.isPaged = isPaged(manifest);
    this.tensors = this.isPaged
      ? new TensorPages(this.storage, manifest) : tensorsOf(manifest.get('tensors'), chainsOf(manifest));
    const tree = new Tree(this.tensors);
    this.metadata = tree.value(manifest.get('metadata'), undefined);
    this.tags = tree.tags; // those whose child is given
    this.paths = tree.paths; // the path at which each tensor stands first, as far as the tree was looked at
    if (this.isPaged) {
      this.parts = this.tensors;
      return;
    }
    checkFingerprint(schema, this.tensors);
    this.#tree = tree.value(manifest.get('tree'), []);
    need(this.paths.size === this.tensors.length, 'TREE-009', 'a tensor stands nowhere in the tree');
    const Kind = record.layout === 'packed' ? PackedParts : Parts;
    this.parts = new Kind(this.storage, manifest, this.tensors);
  }

  close() {
    this.storage.close();
  }

  get unknownTags() {
    return [...this.tags];
  }

  get tree() {
    if (this.#tree === undefined) {
      const paged = new PagedTree(this.tensors, this.manifest.get('tree'), this.tags);
      this.#tree = paged.whole();
      this.paths = paged.paths;
    }
    return this.#tree;
  }

  /** The label of the path at which a tensor stands first [BLK-009]; a paged checkpoint tells it by the name [PAGE-005]. */
  labelOf(name) {
    if (this.isPaged) return name.split('/').map((segment) => (isNumber(segment) ? segment : label(unescape(segment)))).join('/');
    return this.paths.get(this.tensors.find((tensor) => tensor.name === name)).map(label).join('/');
  }

  /** The value at a typed path: strings, and BigInts for int keys and positions. */
  at(path) {
    if (this.isPaged && path.length > 0) {
      const paged = new PagedTree(this.tensors, this.manifest.get('tree'), this.tags);
      const found = paged.at(path);
      need(found !== undefined, 'section 2', `the tree has no ${path.join('/')}`, 'no-such-path');
      return found.value;
    }
    let value = this.tree;
    for (const key of path) {
      const items = value instanceof Tuple ? value.items : value;
      const found = items instanceof Map ? items.has(key)
        : Array.isArray(items) && typeof key === 'bigint' && key >= 0n && key < items.length;
      need(found, 'section 2', `the tree has no ${path.join('/')}`, 'no-such-path');
      value = items instanceof Map ? items.get(key) : items[Number(key)];
    }
    return value;
  }

  /**
   * The elements of a tensor, or of a slice of it, as one raw chunk without padding would hold them; unused bits are 0.
   * `slices` has [start, stop, step] for each axis. `verify: false` skips the digests [BLK-006].
   */
  read(tensor, slices = tensor.shape.map((side) => [0, side, 1]), { verify = true } = {}) {
    const { packed, bits, size } = DTYPES.get(tensor.dtype);
    const right = slices.length === tensor.shape.length && slices.every(
      ([start, stop, step], axis) => start >= 0 && start <= stop && stop <= tensor.shape[axis] && step >= 1);
    need(right, 'section 12', `slices ${JSON.stringify(slices, String)}`, 'bad-index');
    if (slices.some(([start, stop]) => start === stop)) return Buffer.alloc(0);
    const exact = tensor.shape.every(Number.isSafeInteger);
    need(exact, 'LIM-001', `a tensor of shape ${tensor.shape}`, 'limit-exceeded');
    const box = slices.map(([start, stop, step]) => ({ start, step, count: Math.ceil((stop - start) / step) }));
    if (box.length === 0) box.push({ start: 0, step: 1, count: 1 }); // a 0-d tensor is read as one of shape [1]
    if (bits === 8 * size) return this.#gather(tensor, box, verify);
    const wanted = box.pop(); // whole storage elements are gathered, of which the wanted ones are picked
    const start = Math.floor(wanted.start / packed);
    const stop = Math.ceil((wanted.start + (wanted.count - 1) * wanted.step + 1) / packed);
    const data = this.#gather(tensor, [...box, { start, step: 1, count: stop - start }], verify);
    return repack(data, stop - start, { ...wanted, start: wanted.start - start * packed }, bits, packed);
  }

  /** Storage elements at the positions start + i · step of each axis, by arithmetic [READ-003]. */
  #gather(tensor, box, verify) {
    const grid = tensor.grid.length ? tensor.grid : [1];
    const { size } = DTYPES.get(tensor.dtype);
    const out = Buffer.alloc(box.reduce((product, { count }) => product * count, size));
    const axes = box.map((axis, i) => touched(axis, grid[i]));
    for (const at of product(axes)) { // for each chunk: its number on each axis, and the positions of the box in it
      const numbers = tensor.shape.length ? at.map(({ chunk: number }) => number) : [];
      const chunk = new Chunk(this.storage, this.parts, tensor, numbers, verify);
      const last = box.length - 1;
      const [run, runs] = box[last].step === 1 ? [at[last].count, 1] : [1, at[last].count]; // elements read at once
      for (const row of product(at.slice(0, last).map(({ count }) => [...Array(count).keys()]))) {
        const place = (length, begin) => [...row, 0].reduce((sum, position, i) => sum * length(i) + begin(i, position), 0);
        const source = place((i) => grid[i], (i, position) => at[i].offset + position * box[i].step);
        const target = place((i) => box[i].count, (i, position) => at[i].first + position);
        for (let i = 0; i < runs; i++) {
          const [begin, to] = [(source + i * box[last].step) * size, (target + i) * size];
          chunk.copy(begin, begin + run * size, out, to);
          const bad = tensor.dtype === 'bool' && out.subarray(to, to + run).some((byte) => byte > 1);
          if (bad) throw chunk.fault('bad-chunk', 'a bool is neither 0 nor 1 [DTYPE-005]');
        }
      }
    }
    return out;
  }
}

const isNumber = (text) => /^-?[0-9]+$/.test(text);

/** A key in the label of a path: between quotes where it could be mistaken. */
function label(key) {
  const mistaken = typeof key === 'string' && (key === '' || key.includes('/') || isNumber(key));
  return mistaken ? `'${key}'` : String(key);
}

/** The key that a segment of a name stands for, as text [NAME-002]. */
function unescape(segment) {
  if (segment === '~') return '';
  const bytes = segment.replaceAll(/~([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString();
}

/** The chunks along one axis: `count` positions of the box from the `first` on, which begin at `offset` in the chunk. */
function touched({ start, step, count }, side) {
  const chunks = [];
  for (let first = 0; first < count;) {
    const chunk = Math.floor((start + first * step) / side);
    const next = Math.min(count, Math.ceil(((chunk + 1) * side - start) / step));
    chunks.push({ chunk, first, count: next - first, offset: start + first * step - chunk * side });
    first = next;
  }
  return chunks;
}

/** The Cartesian product of arrays, the last one varying fastest. */
export function* product([head, ...tail]) {
  if (head === undefined) yield [];
  else for (const item of head) for (const rest of product(tail)) yield [item, ...rest];
}

/** Pick elements of fewer than 8 bits from rows, and pack each row from the lowest bits on [DTYPE-004]. */
export function repack(rows, row, { start, step, count }, bits, packed) {
  const width = Math.ceil(count / packed);
  const out = Buffer.alloc((rows.length / row) * width);
  const mask = (1 << bits) - 1;
  for (let r = 0; r * row < rows.length; r++) {
    for (let i = 0, from = start; i < count; i++, from += step) {
      const element = (rows[r * row + Math.floor(from / packed)] >> ((from % packed) * bits)) & mask;
      out[r * width + Math.floor(i / packed)] |= element << ((i % packed) * bits);
    }
  }
  return out;
}
