// The rows of a tree of which parts are unfolded, by number: of containers with many thousands of items only what is seen
// is asked for. No elements of the page here.

import type { Key, Shown, ShownEntry, ShownTensor } from './shown.js';
import { keyText } from './text.js';

const GROUPED = 5000; // items of a dict up to which names that begin alike stand below what they share
const WINDOW = 256; // items that are asked for at once

/** A node of the tree. Its children are asked for when they are seen. */
export class Branch {
  isOpen = false;
  /** By position; a hole is not known yet. */
  children: Branch[] = [];
  /** Rows of all children that are unfolded, beside the children themselves. */
  inner = 0;
  isGrouped = false;

  constructor(
    readonly parent: Branch | null,
    readonly position: number,
    readonly text: string,
    readonly entry: ShownEntry | null,
    public count: number,
  ) {}

  get level(): number {
    return this.parent === null ? 0 : this.parent.level + 1;
  }

  get isFolder(): boolean {
    return this.entry === null || this.entry.count !== undefined;
  }

  /** Rows below this one. */
  get below(): number {
    return this.isOpen ? this.count + this.inner : 0;
  }

  get tensor(): ShownTensor | undefined {
    return this.entry?.tensor;
  }
}

/** A row: the node, or where it is not known yet its place. */
export interface Row {
  branch: Branch | null;
  parent: Branch;
  position: number;
}

export class Rows {
  readonly root: Branch;
  #asked = new Set<string>();
  #names = 0;

  constructor(readonly shown: Shown, readonly changed: () => void, readonly failed: (error: unknown) => void) {
    this.root = new Branch(null, 0, '', null, shown.rootCount ?? 1);
    this.root.isOpen = true;
  }

  get length(): number {
    return this.root.below;
  }

  /** The row of a number. */
  at(number: number): Row | null {
    let [parent, rest] = [this.root, number];
    for (;;) {
      let passed = 0; // children before the one that is looked for, with rows of their own that are counted off
      let next: Branch | null = null;
      for (const child of this.#open(parent)) {
        const begin = child.position - passed;
        if (rest < begin) break;
        if (rest === begin) return { branch: child, parent, position: child.position };
        if (rest <= begin + child.below) {
          next = child;
          rest -= begin + 1;
          break;
        }
        rest -= begin + 1 + child.below;
        passed = child.position + 1;
      }
      if (next !== null) {
        parent = next;
        continue;
      }
      const position = passed + rest;
      if (position >= parent.count) return null;
      return { branch: parent.children[position] ?? null, parent, position };
    }
  }

  /** The number of the row of a node whose ancestors are all unfolded. */
  numberOf(branch: Branch): number {
    let number = -1;
    for (let one: Branch = branch; one.parent !== null; one = one.parent) {
      number += one.position + 1;
      for (const child of this.#open(one.parent)) {
        if (child.position >= one.position) break;
        number += child.below;
      }
    }
    return number;
  }

  /** Children of a node that are unfolded, in order. */
  #open(parent: Branch): Branch[] {
    return this.#opened.get(parent) ?? [];
  }

  #opened = new Map<Branch, Branch[]>();

  async toggle(branch: Branch, open = !branch.isOpen): Promise<void> {
    if (!branch.isFolder || branch.isOpen === open || branch.parent === null) return;
    if (open) await this.load(branch, 0);
    const before = branch.below;
    branch.isOpen = open;
    const siblings = this.#open(branch.parent).filter((one) => one !== branch);
    if (open) siblings.push(branch);
    this.#opened.set(branch.parent, siblings.sort((one, two) => one.position - two.position));
    this.#grow(branch.parent, branch.below - before);
    this.changed();
  }

  #grow(branch: Branch | null, by: number): void {
    for (let one = branch; one !== null; one = one.parent) {
      one.inner += by;
      if (!one.isOpen) break;
    }
  }

  /** See to it that the child at a position of a node is known, with those around it. */
  async load(parent: Branch, position: number): Promise<void> {
    if (parent.entry !== null && parent.isGrouped) return;
    const isSmall = parent.count <= GROUPED;
    const start = isSmall ? 0 : Math.floor(position / WINDOW) * WINDOW;
    const key = `${(this.#ids.get(parent) ?? this.#id(parent))}:${start}`;
    if (parent.children[position] !== undefined || this.#asked.has(key)) return;
    this.#asked.add(key);
    const stop = Math.min(parent.count, isSmall ? parent.count : start + WINDOW);
    try {
      const entries = await this.shown.children(parent.entry?.path ?? [], { start, stop });
      if (isSmall && isDict(parent, entries)) this.#group(parent, entries);
      else entries.forEach((entry, i) => (parent.children[start + i] = branchOf(parent, start + i, keyText(entry.key), entry)));
    } catch (error) {
      this.#asked.delete(key);
      this.failed(error);
      throw error;
    }
    this.changed();
  }

  #ids = new Map<Branch, number>();

  #id(branch: Branch): number {
    this.#ids.set(branch, this.#names);
    return this.#names++;
  }

  /** Names with periods below what they share, as long as more than one does. */
  #group(parent: Branch, entries: ShownEntry[]): void {
    const before = parent.below;
    parent.children = grouped(parent, entries.map((entry) => ({ words: wordsOf(entry.key), entry })), 0);
    parent.count = parent.children.length;
    const grown = parent.below - before;
    if (parent.isOpen && grown !== 0) this.#grow(parent.parent, grown);
  }

  /** Unfold the way to a tensor, as far as names show it; gives its node. */
  async reveal(path: readonly Key[]): Promise<Branch | null> {
    let branch = this.root;
    for (const [depth, key] of path.entries()) {
      const found = await this.#child(branch, key, path.slice(0, depth + 1));
      if (found === null) return null;
      if (depth < path.length - 1) await this.toggle(found, true);
      branch = found;
    }
    return branch;
  }

  async #child(parent: Branch, key: Key, path: readonly Key[]): Promise<Branch | null> {
    if (parent.count <= GROUPED) {
      await this.load(parent, 0).catch(() => undefined);
    } else {
      const entries = await this.#scan(parent, key);
      if (entries === null) return null;
    }
    const found = find(parent, key, path.length);
    for (let one = found?.parent ?? null; one !== null && one !== parent; one = one.parent) await this.toggle(one, true);
    return found;
  }

  /** Look through a large container for a key. */
  async #scan(parent: Branch, key: Key): Promise<true | null> {
    if (typeof key === 'bigint' && parent.entry?.kind !== 'dict') {
      await this.load(parent, Number(key));
      return true;
    }
    for (let start = 0; start < parent.count; start += WINDOW) {
      await this.load(parent, start);
      for (let i = start; i < Math.min(parent.count, start + WINDOW); i++) if (parent.children[i]?.entry?.key === key) return true;
    }
    return null;
  }
}

const isDict = (parent: Branch, entries: ShownEntry[]): boolean => parent.entry?.kind === 'dict'
  || (parent.entry === null && entries.some(({ key }) => typeof key === 'string'));

const wordsOf = (key: Key): string[] => (typeof key === 'string' ? key.split('.') : [key.toString()]);

function branchOf(parent: Branch, position: number, text: string, entry: ShownEntry): Branch {
  return new Branch(parent, position, text, entry, entry.count ?? 0);
}

interface Named {
  words: string[];
  entry: ShownEntry;
}

const DEEPEST = 32; // groups in groups

/** Those that share a first word become one node, which stands for what all of them share. */
function grouped(parent: Branch, names: Named[], from: number): Branch[] {
  const byWord = new Map<string, Named[]>();
  for (const one of names) {
    const word = one.words.length > from + 1 ? `g${one.words[from]}` : `e${one.words.slice(from).join('.')}`;
    const there = byWord.get(word);
    if (there) there.push(one);
    else byWord.set(word, [one]);
  }
  const children: Branch[] = [];
  for (const [word, members] of byWord) {
    const [one] = members;
    if (word.startsWith('e') || members.length === 1 || from >= DEEPEST) {
      for (const member of members) {
        const text = from === 0 ? keyText(member.entry.key) : keyText(member.words.slice(from).join('.'));
        children.push(branchOf(parent, children.length, text, member.entry));
      }
      continue;
    }
    let shared = from + 1;
    while (members.every(({ words }) => words.length > shared + 1 && words[shared] === one!.words[shared])) shared++;
    const text = `${keyText(one!.words.slice(from, shared).join('.'))}.`;
    const group = new Branch(parent, children.length, text, { ...one!.entry, kind: 'dict', tags: [], count: 0, preview: '', tensor: undefined, value: undefined }, 0);
    group.children = grouped(group, members, shared);
    group.count = group.children.length;
    group.isGrouped = true;
    children.push(group);
  }
  return children;
}

/** The node of a key among the children of one, in groups too. */
function find(parent: Branch, key: Key, depth: number): Branch | null {
  const waiting = [...parent.children];
  for (let one = waiting.pop(); one !== undefined; one = waiting.pop()) {
    if (one.isGrouped) waiting.push(...one.children);
    else if (one.entry?.key === key && one.entry.path.length === depth) return one;
  }
  return null;
}
