// The tree (section 2), of which parts may stand in pages (section 7.1): they are read as far as they are asked for.

import type { Tensor } from './api.js';
import { CkptError, need } from './errors.js';
import { decode, type Item } from './msgpack.js';
import {
  Values, containerOf, isReference, keyOf, positionOf, tagOf, type Container, type Resolved, type Surroundings, type Trail,
} from './nodes.js';
import type { Pages } from './pages.js';
import type { Key, Value } from './values.js';

const DEPTH = 256; // [TREE-012]
const LEAVES = ['tensor', 'int', 'complex', 'scalar'];

/** The tensors that nodes refer to by index. */
export interface TensorSet {
  readonly count: number;
  /** One that is ready. */
  get(index: number): Tensor;
  /** Make tensors ready. */
  load(indices: Iterable<number>, signal?: AbortSignal): Promise<void>;
}

/** A node, how deep it stands, and the number that references in it have to be below. */
interface Place {
  readonly node: Item;
  readonly below: number;
  readonly depth: number;
}

/** A piece of a container that may be joined: the items from `first` on. */
interface Piece {
  readonly container: Container;
  readonly first: number;
  readonly below: number;
}

/** What a view shows of a node before its items. */
export interface Seen {
  readonly key: Key;
  readonly tags: readonly string[];
  readonly kind: 'dict' | 'list' | 'tuple' | 'leaf';
  readonly count: number | undefined;
  /** Of a leaf. */
  readonly value: Value | undefined;
}

export class Tree {
  /** For each tensor the path at which it stands first, once the whole tree has been looked at. */
  paths: ReadonlyMap<number, Trail> = new Map();
  /** Names of tags that were met. */
  readonly tags = new Set<string>();
  readonly #surroundings: Surroundings;
  readonly #nodes = new Map<number, Item>(); // of pages
  #met = new Set<number>(); // pages that the value which is being made has

  /** Pages from `first` on are of the tree; those before are of tensors. */
  constructor(
    readonly root: Item, readonly tensors: TensorSet, readonly pages: Pages | undefined = undefined, readonly first = 0,
  ) {
    this.#surroundings = { tensorCount: tensors.count, tensor: (index) => tensors.get(index) };
    if (pages !== undefined) this.#surroundings.resolve = (node, below) => this.#resolve(node, below);
  }

  get #end(): number {
    return this.pages?.count ?? 0;
  }

  /** The whole tree: each page is referred to, and each tensor stands somewhere [PAGE-009] [TREE-009]. */
  async whole(signal?: AbortSignal): Promise<Value> {
    const values = this.#values();
    const value = await this.#build({ node: this.root, below: this.#end, depth: 0 }, signal, values);
    need(this.#met.size === this.#end - this.first, 'PAGE-006', 'a page is referred to nowhere');
    need(values.paths.size === this.tensors.count, 'TREE-009', 'a tensor stands nowhere in the tree');
    this.paths = values.paths;
    return value;
  }

  /** The value at a path; undefined if there is none. Only pages on the way and in it are read. */
  async at(path: readonly Key[], signal?: AbortSignal): Promise<Value | undefined> {
    const place = await this.#place(path, signal);
    if (place === undefined) return undefined;
    return this.#build(place, signal);
  }

  /** Whether something stands at a path. */
  async has(path: readonly Key[], signal?: AbortSignal): Promise<boolean> {
    return await this.#place(path, signal) !== undefined;
  }

  /** What stands at a path, without what is in it; undefined if there is nothing. */
  async seen(path: readonly Key[], signal?: AbortSignal): Promise<Seen | undefined> {
    const place = await this.#place(path, signal);
    return place && this.#seen(place, path.at(-1) ?? '', signal);
  }

  /** What stands directly below a path, from `start` to `stop`; undefined if there is nothing at the path. */
  async below(path: readonly Key[], start: number, stop: number, signal?: AbortSignal): Promise<Seen[] | undefined> {
    const place = await this.#place(path, signal);
    if (place === undefined) return undefined;
    const out: Seen[] = [];
    for (const piece of await this.#pieces((await this.#bare(place, signal)), [start, stop], false, signal)) {
      const { keys, items } = piece.container;
      const [from, to] = [Math.max(0, start - piece.first), Math.min(items.length, stop - piece.first)];
      const shown = items.slice(from, Math.max(from, to));
      await this.#load(shown.filter(isPage).map((node) => this.#number(node, piece.below)), signal);
      await this.tensors.load(shown.filter(isTensorNode).map(([, index]) => index as number).filter((index) => index < this.tensors.count), signal);
      const values = this.#values();
      for (const [i, node] of shown.entries()) {
        const key = keys === undefined ? BigInt(piece.first + from + i) : keyOf(keys[from + i]!);
        const place = { node, below: piece.below, depth: path.length + 1 };
        if (!isLeaf(node)) out.push(await this.#seen(place, key, signal));
        else out.push({ key, tags: [], kind: 'leaf', count: undefined, value: values.value(node, null, place.depth, place.below) });
      }
    }
    return out;
  }

  /** Metadata: a value without tensors. */
  plain(node: Item): Value {
    return this.#values().plain(node);
  }

  async #build(place: Place, signal?: AbortSignal, values = this.#values()): Promise<Value> {
    await this.#gather(place, signal);
    this.#met = new Set();
    return values.value(place.node, null, place.depth, place.below);
  }

  #values(): Values {
    return new Values(this.#surroundings, this.tags);
  }

  async #seen(place: Place, key: Key, signal?: AbortSignal): Promise<Seen> {
    const tags: string[] = [];
    const { node, below } = await this.#bare(place, signal, tags);
    if (!isReference(node) && containerOf(node) === undefined) {
      return { key, tags, kind: 'leaf', count: undefined, value: await this.#build({ ...place, node, below }, signal) };
    }
    const pieces = await this.#pieces({ node, below, depth: place.depth }, [0, 0], false, signal);
    const count = isReference(node) ? (node[2] as number[]).reduce((sum, one) => sum + one, 0) : pieces[0]!.container.items.length;
    return { key, tags, kind: pieces[0]!.container.kind, count, value: undefined };
  }

  async #place(path: readonly Key[], signal?: AbortSignal): Promise<Place | undefined> {
    let place: Place = { node: this.root, below: this.#end, depth: 0 };
    for (const key of path) {
      const found = await this.#step(await this.#bare(place, signal), key, signal);
      if (found === undefined) return undefined;
      place = found;
    }
    return place;
  }

  /** The item with a key. */
  async #step(place: Place, key: Key, signal?: AbortSignal): Promise<Place | undefined> {
    const range: [number, number] = typeof key === 'bigint' ? [Number(key), Number(key) + 1] : [0, 0];
    for (const { container, first, below } of await this.#pieces(place, range, true, signal)) {
      const here = container.keys === undefined && typeof key === 'bigint' ? key - BigInt(first) : key;
      const at = positionOf(container, here);
      if (at !== undefined) return { node: container.items[at]!, below, depth: place.depth + 1 };
    }
    return undefined;
  }

  /** What is under tags and references to pages; the names of the tags are added to `tags`. */
  async #bare(place: Place, signal?: AbortSignal, tags: string[] = []): Promise<Place> {
    let { node, below, depth } = place;
    for (;;) {
      const tag = tagOf(node);
      if (tag !== undefined) {
        need(++depth <= DEPTH, 'TREE-012', `containers are nested deeper than ${DEPTH}`);
        tags.push(tag.name);
        node = tag.child;
      } else if (this.pages !== undefined && Array.isArray(node) && node[0] === 'page') {
        below = this.#number(node, below);
        await this.#load([below], signal);
        node = this.#node(below);
      } else return { node, below, depth };
    }
  }

  /** The pieces of a container; none of a leaf. Of a joined one the first, and those that reach into `range`; by key all of a dict. */
  async #pieces({ node, below }: Place, range: [number, number], isByKey: boolean, signal?: AbortSignal): Promise<Piece[]> {
    if (this.pages === undefined || !Array.isArray(node) || node[0] !== 'joined') {
      const container = containerOf(node);
      return container === undefined ? [] : [{ container, first: 0, below }];
    }
    const [nodes, counts] = joinedOf(node);
    const out: Piece[] = [];
    let first = 0;
    for (const [i, piece] of nodes.entries()) {
      const inside = i === 0 || (isByKey && out[0]!.container.kind === 'dict')
        || (first < range[1] && first + counts[i]! > range[0]);
      if (inside) {
        const number = isPage(piece) ? this.#number(piece, below) : undefined;
        if (number !== undefined) await this.#load([number], signal);
        const container = containerOf(number === undefined ? piece : this.#node(number));
        const good = container !== undefined && counts[i] === container.items.length
          && (out.length === 0 || out[0]!.container.kind === container.kind);
        need(good, 'PAGE-007', 'what is joined are not containers of one kind, each with as many items as are counted');
        out.push({ container, first, below: number ?? below });
      }
      first += counts[i]!;
    }
    return out;
  }

  /** Load all pages and tensors that a value has in it. [PAGE-016] */
  async #gather({ node, below }: Place, signal?: AbortSignal): Promise<void> {
    const [stack, met, tensors] = [[node], new Set<number>(), new Set<number>()];
    while (stack.length > 0) {
      const wanted: number[] = [];
      for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
        if (!Array.isArray(next)) continue;
        if (next[0] === 'tensor' && typeof next[1] === 'number' && next[1] < this.tensors.count) tensors.add(next[1]);
        else if (this.pages !== undefined && isPage(next)) {
          const number = this.#number(next, below);
          need(!met.has(number), 'PAGE-006', `page ${number} is referred to twice`);
          met.add(number);
          wanted.push(number);
        } else for (const child of next) if (Array.isArray(child)) for (const item of childrenOf(next, child)) stack.push(item);
      }
      await this.#load(wanted, signal);
      for (const number of wanted) stack.push(this.#node(number));
    }
    await this.tensors.load(tensors, signal);
  }

  #number(node: Item[], below: number): number {
    const [, number] = node;
    const good = typeof number === 'number' && node.length === 2 && number >= this.first && number < below;
    need(good, 'PAGE-006', `page ${number} is not there, or not to be referred to here`);
    return number;
  }

  /** The node of a page that has been loaded. */
  #node(number: number): Item {
    const node = this.#nodes.get(number)!;
    need(!isReference(node), 'PAGE-006', `page ${number} is nothing but a reference`);
    return node;
  }

  /** Load pages; those that lie one after another with one request. */
  async #load(numbers: readonly number[], signal?: AbortSignal): Promise<void> {
    const wanted = numbers.filter((number) => !this.#nodes.has(number)).sort((one, two) => one - two);
    for (let i = 0; i < wanted.length;) {
      let next = i + 1;
      while (next < wanted.length && wanted[next] === wanted[next - 1]! + 1) next++;
      const run = await this.pages!.run(wanted[i]!, wanted[next - 1]! + 1, signal);
      run.forEach((bytes, at) => this.#nodes.set(wanted[i]! + at, decode(bytes)));
      i = next;
    }
  }

  /** The node of a page, or the container of those that are joined. */
  #resolve(node: Item[], below: number): Resolved {
    if (isPage(node)) {
      const number = this.#meet(node, below);
      return { node: this.#node(number), below: number };
    }
    const [nodes, counts] = joinedOf(node);
    const [keys, items, sources]: [Item[], Item[], number[]] = [[], [], []];
    let kind: string | undefined;
    nodes.forEach((piece, i) => {
      const number = isPage(piece) ? this.#meet(piece, below) : undefined;
      const container = containerOf(number === undefined ? piece : this.#node(number));
      const good = container !== undefined && container.items.length === counts[i] && (kind ??= container.kind) === container.kind;
      need(good, 'PAGE-007', 'what is joined are not containers of one kind, each with as many items as are counted');
      for (const key of container.keys ?? []) keys.push(key);
      for (const item of container.items) {
        items.push(item);
        sources.push(number ?? below);
      }
    });
    return { node: kind === 'dict' ? [kind, keys, items] : [kind!, items], below: (i) => sources[i]! };
  }

  #meet(node: Item[], below: number): number {
    const number = this.#number(node, below);
    need(!this.#met.has(number), 'PAGE-006', `page ${number} is referred to twice`);
    this.#met.add(number);
    return number;
  }
}

const isPage = (node: Item): node is Item[] => Array.isArray(node) && node[0] === 'page';

const isTensorNode = (node: Item): node is Item[] => Array.isArray(node) && node[0] === 'tensor' && typeof node[1] === 'number';

/** Whether a node has surely no others in it, and is in no page. */
const isLeaf = (node: Item): boolean => !Array.isArray(node) || LEAVES.includes(node[0] as string);

/** Those of the arrays in an array that may have nodes in them. */
function* childrenOf(node: Item[], child: Item[]): Generator<Item> {
  if (node[0] === 'tag') yield child;
  else for (const item of child) if (Array.isArray(item)) yield item;
}

function joinedOf(node: Item[]): [Item[], number[]] {
  const [, nodes, counts] = node;
  const good = node.length === 3 && Array.isArray(nodes) && Array.isArray(counts) && nodes.length > 0
    && nodes.length === counts.length && counts.every((count) => typeof count === 'number' && count >= 0);
  if (!good) throw new CkptError('bad-manifest', 'a joined node of another form [PAGE-007]');
  return [nodes, counts as number[]];
}
