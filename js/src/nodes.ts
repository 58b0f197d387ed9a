// Nodes of the tree and of metadata (section 2), as values, with every rule that binds readers checked.

import type { Tensor } from './api.js';
import { toHex, view } from './bytes.js';
import { elementsOf, infoOf, isDtype, repacked } from './dtypes.js';
import { CkptError, need } from './errors.js';
import { bin, int, str } from './forms.js';
import { Float, type Item } from './msgpack.js';
import { isPlain } from './names.js';
import { Complex, Dict, NaNBits, Scalar, Tagged, Tuple, type Key, type Value } from './values.js';

const DEPTH = 256; // [TREE-012]

/** A path as it grows: the last key, and what is above it. */
export type Trail = { readonly key: Key; readonly above: Trail } | null;

export function pathOfTrail(trail: Trail): Key[] {
  const path: Key[] = [];
  for (let at = trail; at !== null; at = at.above) path.push(at.key);
  return path.reverse();
}

/** A dict, list or tuple, well formed: its keys (undefined: positions) and its items. */
export interface Container {
  readonly kind: 'dict' | 'list' | 'tuple';
  readonly keys: readonly Item[] | undefined;
  readonly items: readonly Item[];
}

/** The container that a node is; undefined of any other node. A dict has as many keys as values. [TREE-006] */
export function containerOf(node: Item): Container | undefined {
  if (!Array.isArray(node)) return undefined;
  const [kind, one, two] = node;
  if (kind === 'dict' && node.length === 3 && Array.isArray(one) && Array.isArray(two)) {
    need(one.length === two.length, 'TREE-006', `${one.length} keys and ${two.length} values`);
    return { kind, keys: one, items: two };
  }
  if ((kind === 'list' || kind === 'tuple') && node.length === 2 && Array.isArray(one)) return { kind, keys: undefined, items: one };
  return undefined;
}

/** Name, param and child of a tag; undefined of any other node. */
export function tagOf(node: Item): { name: string; param: Item; child: Item } | undefined {
  if (!Array.isArray(node) || node[0] !== 'tag' || node.length !== 4 || !str(node[1])) return undefined;
  return { name: node[1], param: node[2]!, child: node[3]! };
}

/** Whether a node stands for what is in pages. */
export function isReference(node: Item): node is Item[] {
  return Array.isArray(node) && (node[0] === 'page' || node[0] === 'joined');
}

export function keyOf(node: Item): Key {
  if (str(node)) return node;
  if (int(node)) return bigint(node);
  const long = Array.isArray(node) && node.length === 2 && node[0] === 'int' && bin(node[1]);
  need(long, 'TREE-007', 'a key is neither a string nor an integer');
  return integer((node as Item[])[1] as Uint8Array);
}

const LEAST = -128;
const SMALL = Array.from({ length: 1152 }, (_, i) => BigInt(i + LEAST)); // a tree may hold millions, of a byte each

function bigint(value: number | bigint): bigint {
  return (typeof value === 'number' ? SMALL[value - LEAST] : undefined) ?? BigInt(value);
}

/** Two's complement, big-endian. */
function integer(bytes: Uint8Array): bigint {
  need(bytes.length > 0, 'TREE-003', 'an int without bytes');
  return BigInt.asIntN(8 * bytes.length, BigInt(`0x${toHex(bytes)}`));
}

function floatAt(bytes: Uint8Array, at: number): number | NaNBits {
  const value = view(bytes).getFloat64(at, true);
  if (!Number.isNaN(value)) return value;
  const bits = view(bytes).getBigUint64(at, true);
  return bits === 0x7ff8000000000000n ? NaN : new NaNBits(bits);
}

function scalarOf(dtype: string, bytes: Uint8Array): Scalar {
  const info = infoOf(dtype);
  need(bytes.length === info.size, 'TREE-005', `a scalar ${dtype} of ${bytes.length} bytes`);
  need(dtype !== 'bool' || bytes[0]! < 2, 'TREE-005', `a scalar bool ${bytes[0]}`);
  need(isDtype(dtype), 'DTYPE-001', `dtype ${dtype}`, 'unknown-dtype');
  const stored = info.bits < 8 ? repacked(bytes, 1, 0, 1, 1, info) : bytes.slice(); // unused bits are 0 [DTYPE-010]
  const [one, two] = elementsOf(stored.slice(), dtype, 1, 1);
  const value = dtype === 'bool' ? one === 1 : two === undefined ? one! : new Complex(Number(one), Number(two));
  return new Scalar(dtype, stored, value);
}

/** What may stand in a tree beside plain values: tensors, and where a manifest is paged what is in pages. */
export interface Surroundings {
  readonly tensorCount: number;
  tensor(index: number): Tensor;
  /** The container that a `joined` node stands for, or the node of a page; each with the number that pages in it are below. */
  resolve?(node: Item[], below: number): Resolved;
}

/** A node, or of a container that is joined the parts; `below` is the number that references in it have to be below. */
export interface Resolved {
  readonly node: Item;
  readonly below: number | ((position: number) => number);
}

/** Makes values of nodes. Aliases become one and the same tensor [TREE-010]. */
export class Values {
  /** For each tensor met the path at which it stands first. */
  readonly paths = new Map<number, Trail>();

  /** `tags` gets the names of those that are met. */
  constructor(readonly surroundings: Surroundings, readonly tags: Set<string>) {}

  /** A value without tensors and pages: metadata, or the param of a tag. [TREE-014] */
  plain(node: Item): Value {
    return this.#value(node, undefined, 0, 0);
  }

  /** The value of a node at a path and depth, in which references to pages are below `below`. */
  value(node: Item, trail: Trail, depth: number, below: number): Value {
    return this.#value(node, trail, depth, below);
  }

  #value(node: Item, trail: Trail | undefined, depth: number, below: number): Value {
    if (node === null || typeof node === 'boolean' || typeof node === 'string' || bin(node)) return node;
    if (int(node)) return bigint(node);
    if (node instanceof Float) return node.value;
    need(Array.isArray(node), 'TREE-001', 'a map is no node');
    const leaf = this.#leaf(node, trail);
    if (leaf !== undefined) return leaf;
    if (trail !== undefined && isReference(node) && this.surroundings.resolve !== undefined) {
      const found = this.surroundings.resolve(node, below);
      if (typeof found.below === 'number') return this.#value(found.node, trail, depth, found.below);
      return this.#container(containerOf(found.node)!, trail, depth, found.below);
    }
    if (depth >= DEPTH) throw new CkptError('bad-manifest', `containers are nested deeper than ${DEPTH} [TREE-012]`);
    const container = containerOf(node);
    if (container !== undefined) return this.#container(container, trail, depth, () => below);
    const tag = tagOf(node);
    need(tag !== undefined, 'TREE-001', `an array of ${node.length} is no node`);
    this.tags.add(tag.name);
    const param = this.#value(tag.param, undefined, depth + 1, 0);
    return new Tagged(tag.name, param, this.#value(tag.child, trail, depth + 1, below));
  }

  /** The value of an array that has no nodes in it. */
  #leaf(node: Item[], trail: Trail | undefined): Value | undefined {
    const [kind, one, two] = node;
    if (node.length === 2) {
      if (kind === 'tensor' && int(one)) return this.#tensor(one, trail);
      if (kind === 'int' && bin(one)) return integer(one);
      if (kind === 'complex' && bin(one)) {
        need(one.length === 16, 'TREE-005', `a complex of ${one.length} bytes`);
        return new Complex(floatAt(one, 0), floatAt(one, 8));
      }
    }
    return node.length === 3 && kind === 'scalar' && str(one) && bin(two) ? scalarOf(one, two) : undefined;
  }

  #tensor(number: number | bigint, trail: Trail | undefined): Tensor {
    need(trail !== undefined, 'TREE-014', 'a tensor in metadata or in the param of a tag');
    need(number >= 0 && number < this.surroundings.tensorCount, 'TREE-009', `tensor ${number} of ${this.surroundings.tensorCount}`);
    const index = Number(number);
    if (!this.paths.has(index)) this.paths.set(index, trail);
    return this.surroundings.tensor(index);
  }

  #container({ kind, keys, items }: Container, trail: Trail | undefined, depth: number, below: (i: number) => number): Value {
    if (depth >= DEPTH) throw new CkptError('bad-manifest', `containers are nested deeper than ${DEPTH} [TREE-012]`);
    const item = (child: Item, i: number, key: () => Key): Value => {
      const inner = trail === undefined || !Array.isArray(child) ? trail : { key: key(), above: trail };
      return this.#value(child, inner, depth + 1, below(i));
    };
    if (keys === undefined) {
      const values = items.map((child, i) => item(child, i, () => BigInt(i)));
      return kind === 'list' ? values : new Tuple(values);
    }
    const found = new Dict();
    items.forEach((child, i) => {
      const key = keyOf(keys[i]!);
      if (!found.add(key, item(child, i, () => key))) throw new CkptError('bad-manifest', 'a dict repeats a key [TREE-006]');
    });
    return found;
  }
}

/** A value with the children of tags in their places. [TAG-001] */
export function withoutTags(value: Value): Value {
  if (value instanceof Tagged) return withoutTags(value.child);
  if (Array.isArray(value)) return value.map(withoutTags);
  if (value instanceof Tuple) return new Tuple(value.items.map(withoutTags));
  if (value instanceof Dict) return new Dict([...value].map(([key, item]) => [key, withoutTags(item)]));
  return value;
}

/** The position of a key in a container; undefined if it is not there. */
export function positionOf({ keys, items }: Container, key: Key): number | undefined {
  if (keys === undefined) return typeof key === 'bigint' && key >= 0n && key < items.length ? Number(key) : undefined;
  const at = typeof key === 'string' ? keys.indexOf(key) : keys.findIndex((known) => !str(known) && keyOf(known) === key);
  return at < 0 ? undefined : at;
}

/** Whether each path text stands for one path: no key is a string that could be mistaken. [PAGE-008] */
export function hasPlainKeys(value: Value): boolean {
  if (value instanceof Tagged) return hasPlainKeys(value.child);
  if (value instanceof Dict) return [...value].every(([key, item]) => isPlain(key) && hasPlainKeys(item));
  const items = value instanceof Tuple ? value.items : value;
  return !Array.isArray(items) || items.every(hasPlainKeys);
}
