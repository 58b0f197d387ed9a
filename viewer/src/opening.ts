// From what people give to what is shown: told by the last and the first bytes, never by the name.

import { type Checkpoint, type Source, open } from '../../js/src/index.js';
import { sourceOf } from '../../js/src/sources.js';
import { FormatError } from './formats/flat.js';
import { looksLikeGguf, openGguf } from './formats/gguf.js';
import { looksLikeSafetensors, openSafetensors } from './formats/safetensors.js';
import type { Given } from './given.js';
import type { Listed } from './served.js';
import type { Shown } from './shown.js';
import { count } from './text.js';

const HEAD = 65536;
const TAIL = 255; // in which a commit record stands [COM-004]

/** Open what was dropped, chosen or named. */
export async function openGiven(given: Given): Promise<Shown> {
  if ('url' in given) return openSource(await sourceOf(new URL(given.url), {}), nameIn(given.url));
  const [first] = given.files;
  if (given.files.length === 1 && first) return openSource(await sourceOf(first.file, {}), first.file.name);
  const commits = given.files.filter(({ path }) => path.split('/').at(-1) === 'COMMIT').map(({ path }) => path);
  const [commit] = commits;
  if (commit === undefined || commits.length > 1) {
    throw new Error(commits.length ? `There are ${count(commits.length, 'checkpoint')} in this folder; drop one of them.` : 'No file of these is a COMMIT, so they are no checkpoint in a directory. Drop one file at a time.');
  }
  const root = commit.slice(0, -'COMMIT'.length);
  const objects = new Map(given.files.filter(({ path }) => path.startsWith(root)).map(({ path, file }) => [path.slice(root.length), file]));
  return openSource(await sourceOf(objects, {}), root.replace(/\/$/, '').split('/').at(-1) || 'folder');
}

/** Open what the server of this page has. */
export async function openServed({ at, name, directory }: Listed): Promise<Shown> {
  return openSource(await sourceOf(new URL(`${at}${directory ? '/' : ''}`, document.baseURI), {}), name);
}

const nameIn = (url: string): string => decodeURIComponent(new URL(url).pathname.replace(/\/$/, '').split('/').at(-1) || url);

async function openSource(source: Source, name: string): Promise<Shown> {
  try {
    if (source.kind === 'directory') return await ours(await open(source), name, undefined);
    const { bytes, size } = await source.tail('', TAIL);
    if (/ckptfmt\/[0-9]/.test(latin(bytes.subarray(-TAIL)))) return await ours(await open(source), name, size);
    const head = await source.read('', 0, Math.min(HEAD, size));
    const labelled = Object.create(source, { label: { value: name } }) as Source;
    if (looksLikeGguf(head)) return await openGguf(bound(labelled, source), head, size);
    if (looksLikeSafetensors(head)) return await openSafetensors(bound(labelled, source), head, size);
    return await ours(await open(source), name, size);
  } catch (error) {
    await source.close();
    if (error instanceof FormatError) throw new Error(`${name}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** A source under another name: its methods are those of the first. */
function bound({ label }: Source, source: Source): Source {
  return {
    kind: source.kind, label, readAhead: source.readAhead, size: (...all) => source.size(...all), read: (...all) => source.read(...all),
    tail: (...all) => source.tail(...all), close: () => source.close(),
  };
}

const latin = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/** A checkpoint of this format as the page shows it. */
async function ours(checkpoint: Checkpoint, name: string, size: number | undefined): Promise<Shown> {
  const root = await checkpoint.entry([]);
  const { layout, format, generator, digest, sha256, requires } = checkpoint;
  const facts: [string, string][] = [
    ['Format', `ckptfmt ${format.join('.')}`], ['Layout', layout], ['Written by', generator], ['Digests', digest],
    ...(requires.length ? [['Requires', requires.join(', ')] as [string, string]] : []), ['sha256 of the manifest', sha256],
  ];
  return {
    name, format: 'ckptfmt', size, block: checkpoint.block, digest, facts, metadata: checkpoint.metadata, schema: checkpoint.schema,
    provenance: checkpoint.provenance, tensorCount: checkpoint.tensorCount, rootCount: root.count,
    // a tree that is one leaf has one row
    children: async (path, options) => (root.count === undefined ? [{ ...root, key: '(root)' }] : checkpoint.children(path, options)),
    tensors: (options) => checkpoint.tensors(options),
    verify: (options) => checkpoint.verify(options),
    close: () => checkpoint.close(),
  };
}
