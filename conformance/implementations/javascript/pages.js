// Pages (section 7.1): names, specs and chunk tables of some thousand tensors each, and parts of the tree, all of them
// read when something in them is asked for.

import { createHash } from 'node:crypto';
import { Parts, TABLE, column } from './chunks.js';
import { need } from './faults.js';
import { DIGEST_SIZE, bin, chainsOf, isPath, list, map, str, tensorsOf, uint } from './manifest.js';
import { decode } from './msgpack.js';
import { Tree, isContainer } from './tree.js';

const END = 2 ** 63;
const LIMIT = 2 ** 30; // bytes of a page
const KINDS = map({ dtype: list(str), shape: list(list(uint)), grid: list(list(uint)), codec: list(uint) });
const PAGE = map({ name: bin, kinds: KINDS, kind: bin, chunks: TABLE });

/** The pages of one checkpoint, as msgpack items. */
export class Pages {
  constructor(storage, pages) {
    Object.assign(this, { storage, sha256: pages.get('sha256'), offset: Number(pages.get('offset')) });
    this.lengths = column(pages.get('length'), 8);
    need(this.sha256.length === 32 * this.lengths.length, 'PAGE-002', 'the columns of `pages` differ in length');
    need(this.lengths.every((length) => length > 0), 'PAGE-002', 'a page is empty', 'bad-extent');
    this.starts = [this.offset];
    for (const length of this.lengths) this.starts.push(this.starts.at(-1) + length);
    const inside = this.starts.at(-1) <= storage.record.offset && this.starts.at(-1) < END;
    need(inside, 'PAGE-002', 'a page reaches beyond the first byte of the manifest', 'bad-extent');
    this.count = this.lengths.length;
  }

  /** The bytes of a page [PAGE-003]. */
  bytes(number) {
    const length = this.lengths[number];
    need(length <= LIMIT, 'LIM-011', `page ${number} has ${length} bytes`, 'limit-exceeded');
    const bytes = this.storage.read('', this.starts[number], this.lengths[number]);
    const right = createHash('sha256').update(bytes).digest().equals(this.sha256.subarray(32 * number, 32 * number + 32));
    need(right, 'PAGE-003', `page ${number} has another sha256`, 'manifest-digest');
    return bytes;
  }

  item(number) {
    return decode(this.bytes(number));
  }
}

/** The chunks of one page: extents end where pages begin [PAGE-002]. */
class PageParts extends Parts {
  limit() {
    return this.storage.pages.offset;
  }
}

/** All tensors, and their chunks; as an array has `length` and `at`, and as `Parts` have `find` and `load`. */
export class TensorPages {
  #loaded = new Map();

  constructor(storage, manifest) {
    this.pages = storage.pages = new Pages(storage, manifest.get('pages'));
    this.chains = chainsOf(manifest);
    Object.assign(this, { storage, manifest, digest: manifest.get('digest'), block: Number(manifest.get('block')) });
    this.digestSize = DIGEST_SIZE[this.digest];
    const tensors = manifest.get('tensors');
    this.first = tensors.get('first');
    [this.counts, this.chunks] = ['count', 'chunks'].map((key) => column(tensors.get(key), 8));
    const even = [this.counts, this.chunks].every(({ length }) => length === this.first.length);
    need(even && this.first.length <= this.pages.count, 'PAGE-004', 'the columns of `tensors` differ, or say too much');
    const sorted = this.first.every((name, i) => i === 0 || this.first[i - 1] < name); // of ASCII, as page by page shows
    need(sorted, 'PAGE-005', 'pages are not in the order of their first names');
    const some = this.counts.every((count, i) => count > 0 && count <= this.pages.lengths[i]);
    need(some, 'PAGE-004', 'a page without tensors, or with more than it has bytes for');
    need(this.chunks.reduce((sum, count) => sum + count, 0) < 2 ** 62, 'LIM-006', 'there are 2⁶² chunks or more');
    this.starts = [0];
    for (const count of this.counts) this.starts.push(this.starts.at(-1) + count);
    this.length = this.starts.at(-1);
    this.parts = this.first; // one for each page, as for a whole verification
  }

  at(index) {
    const page = this.#pageOf(index);
    return this.page(page).tensors[index - this.starts[page]];
  }

  find(index, chunk) {
    const page = this.#pageOf(index);
    return this.page(page).parts.find(index - this.starts[page], chunk);
  }

  /** The extents of a page. */
  load(page) {
    return this.page(page).parts.load(0);
  }

  #pageOf(index) {
    let [low, high] = [0, this.first.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.starts[middle] <= index) low = middle;
      else high = middle;
    }
    return low;
  }

  page(number) {
    if (!this.#loaded.has(number)) this.#loaded.set(number, this.#read(number));
    return this.#loaded.get(number);
  }

  /** What a page shows by itself [PAGE-009]. */
  #read(number) {
    const page = this.pages.item(number);
    need(PAGE(page), 'PAGE-004', `page ${number} lacks a key, or has one of another type`);
    const names = this.#names(number, page.get('name').toString('latin1'));
    const rows = column(page.get('kind'), 4);
    const kinds = tensorsOf(page.get('kinds'), this.chains);
    const good = rows.length === names.length && rows.every((row) => row < kinds.length);
    need(good, 'PAGE-004', `page ${number} does not say of each tensor what it is like`);
    const like = (row) => Object.create(Object.getPrototypeOf(kinds[row]), Object.getOwnPropertyDescriptors(kinds[row]));
    const local = names.map((name, i) => Object.assign(like(rows[i]), { index: this.starts[number] + i, name }));
    const part = new Map([['object', ''], ['size', null], ['frame', null], ['chunks', page.get('chunks')]]);
    const table = new Map([...this.manifest, ['parts', [part]]]);
    const parts = new PageParts(this.storage, table, local);
    need(parts.firsts.at(-1) === this.chunks[number], 'PAGE-004', `page ${number} has another number of chunks`);
    return { tensors: local, parts };
  }

  #names(number, text) {
    const names = text.split('\n');
    need(names.pop() === '' && names.length === this.counts[number], 'PAGE-004', `page ${number} has other names`);
    const legal = names.every((name) => isPath(name) || (name === '' && this.length === 1));
    need(legal, 'NAME-006', `page ${number} has an illegal name`);
    const next = this.first[number + 1];
    const sorted = names.every((name, i) => i === 0 || names[i - 1] < name)
      && names[0] === this.first[number] && (next === undefined || names.at(-1) < next);
    need(sorted, 'PAGE-005', `the names of page ${number} are not in order, or not where they belong`);
    return names;
  }
}

/** A tree of which parts stand in pages: the pages from `first` on. */
export class PagedTree extends Tree {
  #met = new Set();

  constructor(tensors, root, tags) {
    super(tensors);
    Object.assign(this, { root, pages: tensors.pages, first: tensors.first.length, tags });
  }

  /** The whole tree: each page is referred to, and each tensor stands somewhere [PAGE-009]. */
  whole() {
    const value = this.value(this.root, [], 0, this.pages.count);
    need(this.#met.size === this.pages.count - this.first, 'PAGE-006', 'a page is referred to nowhere');
    need(this.paths.size === this.tensors.length, 'TREE-009', 'a tensor stands nowhere in the tree');
    return value;
  }

  value(node, path, depth, below) {
    const kind = path !== undefined && Array.isArray(node) ? node[0] : undefined;
    if (kind === 'page') {
      const [found, number] = this.#page(node, below);
      return this.value(found, path, depth, number);
    }
    if (kind !== 'joined') return super.value(node, path, depth, below);
    const pieces = this.#pieces(node, below, (piece) => this.#page(piece, below));
    const [[[shape, ...columns]]] = pieces;
    const whole = [shape, ...columns.map((_, at) => pieces.flatMap(([piece]) => piece[at + 1]))];
    const sources = pieces.flatMap(([piece, from]) => piece.at(-1).map(() => from));
    return super.value(whole, path, depth, (i) => sources[i]);
  }

  /** The node of a page, which was not met before, and the number of the page. */
  #page(node, below) {
    const number = this.#number(node, below);
    need(!this.#met.has(number), 'PAGE-006', `page ${number} is referred to twice`);
    this.#met.add(number);
    return [this.#node(number), number];
  }

  #number([, number, ...rest], below) {
    const good = typeof number === 'bigint' && rest.length === 0 && number >= this.first && number < below;
    need(good, 'PAGE-006', `page ${number} is not there, or not to be referred to here`);
    return Number(number);
  }

  #node(number) {
    const node = this.pages.item(number);
    const own = !Array.isArray(node) || !['page', 'joined'].includes(node[0]);
    need(own, 'PAGE-006', `page ${number} is nothing but a reference`);
    return node;
  }

  /** The containers that are joined, all of one kind, each with the number that those of the pages in it lie below. */
  #pieces([, pieces, counts, ...rest], below, page) {
    const form = Array.isArray(pieces) && Array.isArray(counts) && rest.length === 0;
    need(form && pieces.length > 0 && pieces.length === counts.length, 'PAGE-007', 'a joined node of another form');
    const found = pieces.map((piece) => (Array.isArray(piece) && piece[0] === 'page' ? page(piece) : [piece, below]));
    const good = found.every(([node], i) => isContainer(node) && node[0] === found[0][0][0]
      && typeof counts[i] === 'bigint' && counts[i] === BigInt(node.at(-1).length));
    need(good, 'PAGE-007', 'what is joined are not containers of one kind, each with as many items as are counted');
    return found;
  }

  /** The value at a path; only pages on the way are read. */
  at(path) {
    let [node, below, depth] = [this.root, this.pages.count, 0];
    for (const key of path) {
      const found = this.#step(node, below, key);
      if (found === undefined) return undefined;
      [node, below] = found;
      depth += 1;
    }
    return { value: this.value(node, path, depth, below) };
  }

  /** The item of a key, and the number that those of the pages in it lie below. */
  #step(node, below, key) {
    let rest = key; // of a position, what is left after the pieces before
    for (const [piece, number] of this.#containers(node, below)) {
      const at = position(piece, rest);
      if (at !== undefined) return [piece.at(-1)[at], number];
      if (piece[0] !== 'dict' && typeof rest === 'bigint') rest -= BigInt(piece[1].length);
    }
    return undefined;
  }

  /** The pieces of a container under tags and references; none of a leaf. */
  * #containers(start, limit) {
    let [node, below] = [start, limit];
    for (let depth = 0; Array.isArray(node) && (node[0] === 'page' || (node[0] === 'tag' && node.length === 4)); depth++) {
      need(depth < 512, 'TREE-012', 'tags are nested too deeply');
      if (node[0] === 'page') {
        below = this.#number(node, below);
        node = this.#node(below);
      } else [, , , node] = node;
    }
    const page = (piece) => [this.#node(this.#number(piece, below)), this.#number(piece, below)];
    if (Array.isArray(node) && node[0] === 'joined') yield* this.#pieces(node, below, page);
    else if (isContainer(node)) yield [node, below];
  }
}

/** Where the item of a key stands in a container. */
function position([kind, one], key) {
  if (kind !== 'dict') return typeof key === 'bigint' && key >= 0n && key < one.length ? Number(key) : undefined;
  const at = one.findIndex((known) => (Array.isArray(known) ? Tree.key(known) : known) === key);
  return at < 0 ? undefined : at;
}

/** Whether a key is one of those that make path texts ambiguous [PAGE-008]. */
const isPlain = (key) => typeof key !== 'string' || (key !== '' && !key.includes('/') && !/^-?[0-9]+$/.test(key));

export function hasPlainKeys(value) {
  const items = value?.items ?? value;
  if (items instanceof Map) return [...items.keys()].every(isPlain) && [...items.values()].every(hasPlainKeys);
  return !Array.isArray(items) || items.every(hasPlainKeys);
}

/** The name that a path gives [NAME-001] to [NAME-005]. */
export function nameOf(path) {
  return path.map((key) => {
    if (typeof key === 'bigint') return String(key);
    if (key === '') return '~';
    const hex = (byte) => `~${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    const out = [...Buffer.from(key)].map((byte) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z0-9_.-]/.test(char) ? char : hex(byte);
    });
    const [first] = Buffer.from(key);
    if (/^-?[0-9]+$/.test(key) || key.startsWith('__') || key === 'zarr.json') out[0] = hex(first);
    if (key.endsWith('.')) out[out.length - 1] = '~2E';
    return out.join('');
  }).join('/');
}
