// The tree (section 2): from nodes to values, checking every rule that binds readers.

import { need } from './faults.js';
import { Float } from './msgpack.js';
import { bin, dtypeOf, int, str } from './manifest.js';

const DEPTH = 256; // [TREE-012]

/** Whether a node is a dict, with as many keys as values [TREE-006], a list or a tuple. */
export function isContainer(node) {
  if (!Array.isArray(node) || !node.slice(1).every(Array.isArray)) return false;
  if (node[0] === 'dict') return node.length === 3 && node[1].length === node[2].length;
  return (node[0] === 'list' || node[0] === 'tuple') && node.length === 2;
}

export class Tuple {
  constructor(items) {
    this.items = items;
  }
}

export class Complex {
  constructor(real, imaginary) {
    Object.assign(this, { real, imaginary });
  }
}

/** A scalar of a dtype: the bytes of one storage element. */
export class Scalar {
  constructor(dtype, bytes) {
    Object.assign(this, { dtype, bytes });
  }
}

/**
 * Decodes the nodes of one manifest: null, boolean, BigInt, Float, Complex, string, Uint8Array, Scalar, Tensor, Map
 * (keys are strings and BigInts), Array for a list, Tuple. Aliases become one and the same Tensor [TREE-010].
 *
 * `paths` has for each tensor met the path at which it stands first; `tags` each tag met: its child is given [TAG-001].
 */
export class Tree {
  paths = new Map();

  tags = new Set();

  constructor(tensors) {
    this.tensors = tensors;
  }

  static key(node) {
    return dictKey(node);
  }

  deeper(depth) {
    need(depth < DEPTH, 'TREE-012', `containers are nested deeper than ${DEPTH}`);
  }

  /**
   * The value of a node at a path; undefined is the path of what may have no tensors [TREE-014]. `from` is handed on: of
   * what stands in pages the number of the page that a node is in, or a function that gives it for each item.
   */
  value(node, path, depth = 0, from = undefined) {
    if (node === null || typeof node !== 'object' || node instanceof Float || bin(node)) return node;
    need(Array.isArray(node), 'TREE-001', 'a map is no node');
    const [kind, one, two, three] = node;
    const is = (name, ...forms) => kind === name && node.length === forms.length + 1
      && forms.every((form, i) => form(node[i + 1]));
    if (is('int', bin)) return integer(one);
    if (is('complex', bin)) {
      need(one.length === 16, 'TREE-005', `a complex of ${one.length} bytes`);
      return new Complex(...[0, 8].map((at) => new Float(one.readBigUInt64LE(at))));
    }
    if (is('scalar', str, bin)) {
      need(two.length === dtypeOf(one).size, 'TREE-005', `a scalar ${one} of ${two.length} bytes`);
      need(one !== 'bool' || two[0] < 2, 'TREE-005', `a scalar bool ${two[0]}`);
      return new Scalar(one, two);
    }
    if (is('tensor', int)) {
      need(path !== undefined, 'TREE-014', 'a tensor in metadata or in the param of a tag');
      need(one >= 0n && one < this.tensors.length, 'TREE-009', `tensor ${one} of ${this.tensors.length}`);
      const tensor = this.tensors.at(Number(one));
      if (!this.paths.has(tensor)) this.paths.set(tensor, path);
      return tensor;
    }
    this.deeper(depth);
    const item = (child, key, i) => this.value(child, path && [...path, key], depth + 1, typeof from === 'function' ? from(i) : from);
    if (is('list', Array.isArray)) return one.map((child, i) => item(child, BigInt(i), i));
    if (is('tuple', Array.isArray)) return new Tuple(one.map((child, i) => item(child, BigInt(i), i)));
    if (is('dict', Array.isArray, Array.isArray)) {
      need(one.length === two.length, 'TREE-006', `${one.length} keys and ${two.length} values`);
      const keys = one.map(dictKey);
      const items = new Map(keys.map((key, i) => [key, item(two[i], key, i)]));
      need(items.size === keys.length, 'TREE-006', 'a dict repeats a key');
      return items;
    }
    need(kind === 'tag' && node.length === 4 && str(one), 'TREE-001', `an array of ${node.length} is no node`);
    this.tags.add(one);
    this.value(two, undefined, depth + 1);
    return this.value(three, path, depth + 1, from);
  }
}

/** Two's complement, big-endian. */
function integer(bytes) {
  need(bytes.length > 0, 'TREE-003', 'an int without bytes');
  return BigInt.asIntN(8 * bytes.length, BigInt(`0x${bytes.toString('hex')}`));
}

function dictKey(node) {
  if (str(node) || int(node)) return node;
  const long = Array.isArray(node) && node.length === 2 && node[0] === 'int' && bin(node[1]);
  need(long, 'TREE-007', 'a key is neither a string nor an integer');
  return integer(node[1]);
}
