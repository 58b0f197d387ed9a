// From what people give to what is shown: told by the last and the first bytes, never by the name.

import { type Checkpoint, CkptError, type Openable, type Source, open } from '../../js/src/index.js';
import { sourceOf } from '../../js/src/sources.js';
import { FormatError } from './formats/flat.js';
import { looksLikeGguf, openGguf } from './formats/gguf.js';
import { looksLikeSafetensors, openSafetensors } from './formats/safetensors.js';
import type { Given } from './given.js';
import type { Listed } from './served.js';
import type { Shown } from './shown.js';
import { count } from './text.js';

const HEAD = 65536;
const READ_AHEAD = 65536; // of a base that is looked for
const TAIL = 255; // in which a commit record stands [COM-004]

/** Something that can be opened, with its name for people. */
export interface Named {
  readonly name: string;
  readonly from: Openable;
  /** Whether it is a directory, where that is known before it is opened. */
  readonly kind?: Source['kind'];
}

/** What was dropped, chosen or named; of several files that are no checkpoint together each. */
export function namedOf(given: Given): Named[] {
  if ('url' in given) return [{ name: nameIn(given.url), from: new URL(given.url) }];
  const commits = given.files.filter(({ path }) => path.split('/').at(-1) === 'COMMIT').map(({ path }) => path);
  const [commit] = commits;
  if (commit === undefined && given.files.every(({ path }) => !path.includes('/'))) {
    return given.files.map(({ file }) => ({ name: file.name, from: file, kind: 'file' }));
  }
  if (commit === undefined || commits.length > 1) {
    throw new Error(commits.length ? `There are ${count(commits.length, 'checkpoint')} in this folder; drop one of them.` : 'No file of these is a COMMIT, so they are no checkpoint in a directory. Drop one file at a time.');
  }
  const root = commit.slice(0, -'COMMIT'.length);
  const objects = new Map(given.files.filter(({ path }) => path.startsWith(root)).map(({ path, file }) => [path.slice(root.length), file]));
  return [{ name: root.replace(/\/$/, '').split('/').at(-1) || 'folder', from: objects, kind: 'directory' }];
}

/** What the server of this page has. */
export function servedOf({ at, name, directory }: Listed): Named {
  return { name, from: new URL(`${at}${directory ? '/' : ''}`, document.baseURI), kind: directory ? 'directory' : 'file' };
}

const nameIn = (url: string): string => decodeURIComponent(new URL(url).pathname.replace(/\/$/, '').split('/').at(-1) || url);

/** Open it; a patch through its base, if that is among `bases`. */
export async function openNamed(named: Named, bases: readonly Named[] = []): Promise<Shown> {
  const { name, from } = named;
  const source = await sourceOf(from, {});
  try {
    if (source.kind === 'directory') return await ours(await open(source), name, undefined);
    const { bytes, size } = await source.tail('', TAIL);
    const isOurs = /ckptfmt\/[0-9]/.test(latin(bytes.subarray(-TAIL)));
    const head = isOurs ? new Uint8Array() : await source.read('', 0, Math.min(HEAD, size));
    if (looksLikeGguf(head)) return await openGguf(called(name, source.kind, async () => source), head, size);
    if (looksLikeSafetensors(head)) return await openSafetensors(called(name, source.kind, async () => source), head, size);
    const checkpoint = await open(source);
    return await ours(checkpoint.patch && bases.length ? await throughBase(checkpoint, from, bases) ?? checkpoint : checkpoint, name, size);
  } catch (error) {
    await source.close();
    if (error instanceof FormatError) throw new Error(`${name}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** A patch again, through its base; null where that is not among what there is. */
async function throughBase(patch: Checkpoint, from: Openable, bases: readonly Named[]): Promise<Checkpoint | null> {
  const base = bases.map((one) => called(one.name, one.kind ?? 'file', () => sourceOf(one.from, {})));
  try {
    const found = await open(await sourceOf(from, {}), { base });
    await patch.close();
    return found;
  } catch (error) {
    if (error instanceof CkptError) return null;
    throw error;
  }
}

/** A source under a name, which is made when it is first asked for. */
function called(name: string, kind: Source['kind'], make: () => Promise<Source>): Source {
  let made: Promise<Source> | undefined;
  const source = (): Promise<Source> => (made ??= make());
  return {
    kind, label: name, readAhead: READ_AHEAD, size: async (...all) => (await source()).size(...all), read: async (...all) => (await source()).read(...all),
    tail: async (...all) => (await source()).tail(...all), close: async () => (await made)?.close(),
  };
}

const latin = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/** A checkpoint of this format as the page shows it. */
async function ours(checkpoint: Checkpoint, name: string, size: number | undefined): Promise<Shown> {
  const root = await checkpoint.entry([]);
  const { layout, format, generator, digest, sha256, requires, patch, base } = checkpoint;
  const facts: [string, string][] = [
    ['Format', `ckptfmt ${format.join('.')}`], ['Layout', layout], ['Written by', generator], ['Digests', digest],
    ...(requires.length ? [['Requires', requires.join(', ')] as [string, string]] : []), ['sha256 of the manifest', sha256],
    ...(patch ? await factsOfPatch(checkpoint) : []),
  ];
  return {
    name, format: 'ckptfmt', size, block: checkpoint.block, digest, facts, metadata: checkpoint.metadata, schema: checkpoint.schema,
    provenance: checkpoint.provenance, tensorCount: checkpoint.tensorCount, rootCount: root.count, patch: patch ? { base: patch.base, isOpen: base !== null } : undefined,
    // a tree that is one leaf has one row
    children: async (path, options) => (root.count === undefined ? [{ ...root, key: '(root)' }] : checkpoint.children(path, options)),
    tensors: (options) => checkpoint.tensors(options),
    verify: (options) => checkpoint.verify(options),
    close: () => checkpoint.close(),
  };
}

/** How many tensors of a patch are made how, and of what. */
async function factsOfPatch(checkpoint: Checkpoint): Promise<[string, string][]> {
  const counts = { same: 0, xor: 0, whole: 0 };
  for await (const { form } of checkpoint.tensors()) counts[form]++;
  const { patch, base } = checkpoint;
  return [
    ['Patch', `${count(counts.same, 'tensor')} the same as in the base, ${counts.xor} with bits that differ, ${counts.whole} whole`],
    ['Base', `${base ? 'open, and read through' : 'not open'}: its manifest has the sha256 ${patch!.base}`],
  ];
}
