// Names of tensors (section 4), and the labels and texts of paths (section 2).

import { fromHex } from './bytes.js';
import { CkptError } from './errors.js';
import type { Key } from './values.js';

const LONGEST = 65000;
const MAX_INTEGER_BITS = 8192; // of an int in a name [NAME-001]
const SEGMENT = '(?!(?:\\.+|zarr\\.json)(?:/|$)|__)[A-Za-z0-9_.~-]+';
const PATH = new RegExp(`^${SEGMENT}(?:/${SEGMENT})*$`);
const NUMBER = /^-?[0-9]+$/;

/** Whether a name is made of segments as NAME-006 wants them. */
export function isPath(name: string): boolean {
  return name.length <= LONGEST && PATH.test(name);
}

/** Names of all tensors: legal, distinct, none beneath another. [NAME-006] */
export function checkNames(names: readonly string[]): void {
  for (const name of names) {
    const legal = name === '' ? names.length === 1 : isPath(name);
    if (!legal) throw new CkptError('bad-manifest', `the name ${JSON.stringify(name.slice(0, 100))} [NAME-006]`);
  }
  const sorted = [...names].sort();
  sorted.forEach((name, i) => {
    const below = `${name}/`;
    const next = sorted[firstFrom(sorted, below)];
    const clash = sorted[i + 1] === name || (name !== '' && next !== undefined && next.startsWith(below));
    if (clash) throw new CkptError('bad-manifest', `${name.slice(0, 100)} is there twice, or has a name beneath it [NAME-006]`);
  });
}

/** The position of the first of sorted texts that is not before `text`. */
function firstFrom(sorted: readonly string[], text: string): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < text) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The name that a path gives [NAME-001] to [NAME-005]. */
export function nameOf(path: readonly Key[]): string {
  return path.map((key) => (typeof key === 'bigint' ? integerText(key) : escaped(key))).join('/');
}

/** An integer in decimal, but in hexadecimal beyond what names may have: of a million digits, decimal takes seconds. */
export function integerText(value: bigint): string {
  if (BigInt.asIntN(MAX_INTEGER_BITS + 1, value) === value) return String(value);
  return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

function escaped(key: string): string {
  if (key === '') return '~';
  const bytes = new TextEncoder().encode(key);
  const out = Array.from(bytes, (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9_.-]/.test(char) ? char : hex(byte);
  });
  if (NUMBER.test(key) || key.startsWith('__') || key === 'zarr.json') out[0] = hex(bytes[0]!);
  if (key.endsWith('.')) out[out.length - 1] = '~2E';
  return out.join('');
}

const hex = (byte: number): string => `~${byte.toString(16).toUpperCase().padStart(2, '0')}`;

/** The path that a name stands for. */
export function pathOf(name: string): Key[] {
  if (name === '') return [];
  return name.split('/').map((segment) => {
    if (NUMBER.test(segment)) return BigInt(segment);
    if (segment === '~') return '';
    const plain = segment.replaceAll(/(~[0-9A-F]{2})+/g, (run) => new TextDecoder().decode(fromHex(run.replaceAll('~', ''))));
    return plain;
  });
}

/** A path for people: a string between quotes where it could be mistaken. [BLK-009] */
export function labelOf(path: readonly Key[]): string {
  return path.map((key) => (typeof key === 'bigint' ? integerText(key) : isPlain(key) ? key : `'${key}'`)).join('/');
}

/** Whether a key is none of those that make path texts ambiguous. [PAGE-008] */
export function isPlain(key: Key): boolean {
  return typeof key !== 'string' || (key !== '' && !key.includes('/') && !NUMBER.test(key));
}

/** What a segment of a path text may stand for: a string, and an int if it is one in its shortest form. */
export function keysOf(segment: string): Key[] {
  return /^(0|-?[1-9][0-9]*)$/.test(segment) ? [segment, BigInt(segment)] : [segment];
}

/** Text from a file, fit to be shown: control characters are escaped. [SEC-005] */
export function shown(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
