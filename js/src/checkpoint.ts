// An open checkpoint.

import type {
  Checkpoint, ChildrenOptions, Damage, Entry, Path, ReadOptions, Source, Tensor, TreeOptions, VerifyOptions,
} from './api.js';
import { InlineChunks, type Chunks } from './chunks.js';
import { CkptError } from './errors.js';
import type { Limits } from './limits.js';
import type { Manifest } from './manifest.js';
import type { ItemMap } from './msgpack.js';
import { keysOf, labelOf, nameOf } from './names.js';
import { hasPlainKeys, pathOfTrail, withoutTags } from './nodes.js';
import { PackedChunks } from './packed.js';
import { Patch } from './patch.js';
import { previewOf, previewOfItems, previewOfTensor } from './preview.js';
import type { Record } from './record.js';
import { recordsOf } from './records.js';
import type { Reading } from './reading.js';
import { checkFingerprint, specsOf, type Spec } from './specs.js';
import { TensorPages } from './tensor_pages.js';
import { LazyTensor, Tensors, labelOfName } from './tensors.js';
import { Tree, type Seen } from './tree.js';
import { Dict, Tuple, type Key, type Value } from './values.js';
import { verifyWhole } from './verification.js';

/** What an open checkpoint is made of. */
interface Made {
  readonly source: Source;
  readonly record: Record;
  readonly manifest: Manifest;
  readonly reading: Reading;
  readonly specs: readonly Spec[] | TensorPages;
  readonly tensors: Tensors;
  readonly tree: Tree;
  /** Of a manifest that is not paged. */
  readonly whole: Value | undefined;
}

/** Check all of a manifest that it shows by itself, and make a checkpoint of it. [READ-008] */
export async function checkpointOf(
  source: Source, record: Record, manifest: Manifest, limits: Limits, verify: boolean,
): Promise<OpenCheckpoint> {
  const plain = manifest.isPaged ? new TensorPages(source, manifest, record, limits)
    : specsOf(manifest.keys.get('tensors') as ItemMap, manifest.chains);
  const { specs, patch } = manifest.isPatch ? Patch.of(manifest, plain as Spec[]) : { specs: plain, patch: undefined };
  const pages = specs instanceof TensorPages ? specs : undefined;
  const box: { reading?: Reading } = {}; // tensors are made before it is known where their chunks are
  const tensors = new Tensors(specs, () => box.reading!);
  const tree = new Tree(manifest.tree, tensors, pages?.pages, pages?.tableCount);
  const label = pages === undefined ? ({ index }: Spec): string => labelOf(pathOfTrail(tree.paths.get(index)!)) : labelOfName;
  const chunks = await chunksOf(source, record, manifest, specs, limits);
  const reading = { source, chunks, limits, verify, patch, label };
  box.reading = reading;
  const metadata = tree.plain(manifest.metadata);
  let whole: Value | undefined;
  if (!(specs instanceof TensorPages)) {
    await checkFingerprint(manifest.schema, specs);
    whole = await tree.whole();
  }
  return new OpenCheckpoint({ source, record, manifest, reading, specs, tensors, tree, whole }, metadata);
}

async function chunksOf(
  source: Source, record: Record, manifest: Manifest, specs: readonly Spec[] | TensorPages, limits: Limits,
): Promise<Chunks> {
  if (specs instanceof TensorPages) return specs;
  if (record.layout === 'packed') return PackedChunks.open(source, manifest, specs, limits);
  return new InlineChunks(manifest, record, specs);
}

export class OpenCheckpoint implements Checkpoint {
  readonly #made: Made;
  readonly metadata: Value;
  #plain: boolean | undefined;
  #base: { checkpoint: OpenCheckpoint; isOwn: boolean } | undefined;

  constructor(made: Made, metadata: Value) {
    this.#made = made;
    this.metadata = withoutTags(metadata);
  }

  get layout(): Checkpoint['layout'] {
    return this.#made.record.layout;
  }

  get format(): readonly [number, number] {
    return this.#made.manifest.format;
  }

  get generator(): string {
    return this.#made.manifest.generator;
  }

  get digest(): Checkpoint['digest'] {
    return this.#made.manifest.digest;
  }

  get block(): number {
    return this.#made.manifest.block;
  }

  get requires(): readonly string[] {
    return this.#made.manifest.requires;
  }

  get schema(): Checkpoint['schema'] {
    const { schema } = this.#made.manifest;
    return schema && { id: schema.get('id') as string, version: schema.get('version') as string };
  }

  get provenance(): Value {
    return recordsOf(this.#made.manifest.keys.get('provenance'));
  }

  get sha256(): string {
    return this.#made.record.sha256;
  }

  get patch(): Patch | null {
    return this.#made.reading.patch ?? null;
  }

  get base(): OpenCheckpoint | null {
    return this.#base?.checkpoint ?? null;
  }

  /** How many checkpoints are read one through another: this one, its base, and so on. */
  get chained(): number {
    return 1 + (this.base?.chained ?? 0);
  }

  /** Read a patch through its base, which is closed with it if `isOwn`. */
  async take(base: OpenCheckpoint, isOwn: boolean, signal?: AbortSignal): Promise<void> {
    const { reading, tensors } = base.#made;
    await this.patch!.take({ reading, tensors }, this.#made.specs as Spec[], signal);
    this.#base = { checkpoint: base, isOwn };
  }

  get tensorCount(): number {
    return this.#made.tensors.count;
  }

  get unknownTags(): readonly string[] {
    return [...this.#made.tree.tags];
  }

  async tensor(which: Path | number, options: ReadOptions = {}): Promise<Tensor> {
    const { tensors } = this.#made;
    if (typeof which === 'number') {
      const good = Number.isInteger(which) && which >= 0 && which < tensors.count;
      if (!good) throw new CkptError('no-such-path', `tensor ${which} of ${tensors.count}`);
      await tensors.load([which], options.signal);
      return tensors.get(which);
    }
    const { signal } = options;
    const path = typeof which !== 'string' ? typed(which) : this.#hasPlainKeys ? which.split('/').map((key) => keysOf(key).at(-1)!) : undefined;
    const index = path && await tensors.indexOf(nameOf(path), signal); // of an alias there is none [PAGE-015]
    if (index !== undefined) return this.tensor(index, options);
    const value = await this.value(which, signal ? { signal } : {}).catch(async (error: unknown) => {
      const isAbsent = error instanceof CkptError && error.code === 'no-such-path';
      const named = isAbsent && typeof which === 'string' ? await tensors.indexOf(which, signal) : undefined;
      if (named === undefined) throw error;
      return this.tensor(named, options);
    });
    if (value instanceof LazyTensor) return value;
    throw new CkptError('no-such-path', `no tensor stands at ${JSON.stringify(textOf(which))}, but ${previewOf(value)}`);
  }

  async* tensors({ prefix, signal }: { prefix?: Path; signal?: AbortSignal } = {}): AsyncIterable<Tensor> {
    const { tensors } = this.#made;
    if (prefix !== undefined && prefix.length > 0) {
      const seen = new Set<Tensor>();
      for (const tensor of tensorsIn(await this.value(prefix, signal ? { signal } : {}), seen)) yield tensor;
      return;
    }
    for (let index = 0; index < tensors.count; index++) {
      await tensors.load([index], signal);
      yield tensors.get(index);
    }
  }

  async value(path: Path, options: TreeOptions = {}): Promise<Value> {
    const keys = typeof path === 'string' ? await this.#find(path, options.signal) : typed(path);
    const value = await this.#made.tree.at(keys, options.signal);
    if (value === undefined) throw noSuchPath(path);
    return options.tags === true ? value : withoutTags(value);
  }

  async tree(options: TreeOptions = {}): Promise<Value> {
    const { whole, tree } = this.#made;
    const value = whole ?? await tree.whole(options.signal);
    return options.tags === true || tree.tags.size === 0 ? value : withoutTags(value);
  }

  async children(path: Path, { start = 0, stop = Infinity, signal }: ChildrenOptions = {}): Promise<Entry[]> {
    const keys = typeof path === 'string' ? await this.#find(path, signal) : typed(path);
    const found = await this.#made.tree.below(keys, start, stop, signal);
    if (found === undefined) throw noSuchPath(path);
    return found.map((seen) => entryOf(seen, keys));
  }

  async entry(path: Path, { signal }: { signal?: AbortSignal } = {}): Promise<Entry> {
    const keys = typeof path === 'string' ? await this.#find(path, signal) : typed(path);
    const found = await this.#made.tree.seen(keys, signal);
    if (found === undefined) throw noSuchPath(path);
    return { ...entryOf(found, keys), path: keys };
  }

  verify(options: VerifyOptions = {}): Promise<Damage[]> {
    const chain: Made[] = [];
    for (let one: OpenCheckpoint | null = this; one !== null; one = one.base) chain.push(one.#made);
    return verifyWhole(chain, options);
  }

  async close(): Promise<void> {
    await this.#made.source.close();
    if (this.#base?.isOwn) await this.#base.checkpoint.close();
  }

  /** Whether each path text stands for one path. */
  get #hasPlainKeys(): boolean {
    const { manifest, whole } = this.#made;
    return this.#plain ??= whole === undefined ? manifest.keys.get('plain_keys') === true : hasPlainKeys(whole);
  }

  /** The one path that a text stands for: `a/b` may be two keys or one, `0` an int or a string. */
  async #find(text: string, signal?: AbortSignal): Promise<Key[]> {
    if (text === '') return [];
    const segments = text.split('/');
    const found: Key[][] = [];
    const walk = async (path: Key[], at: number): Promise<void> => {
      if (at === segments.length) {
        found.push(path);
        return;
      }
      const keys = keysOf(segments[at]!).concat(segments.slice(at + 1).map((_, i) => segments.slice(at, at + 2 + i).join('/')));
      for (const key of keys) {
        const next = [...path, key];
        const width = typeof key === 'string' ? key.split('/').length : 1;
        if (await this.#made.tree.has(next, signal)) await walk(next, at + width);
      }
    };
    await walk([], 0);
    if (found.length > 1) {
      const paths = found.map((path) => labelOf(path)).join(', ');
      throw new CkptError('ambiguous-path', `${JSON.stringify(text)} may be ${paths}: give the keys as an array`);
    }
    const [path] = found;
    if (path === undefined) throw noSuchPath(text);
    return path;
  }
}

function noSuchPath(path: Path): CkptError {
  return new CkptError('no-such-path', `the tree has no ${JSON.stringify(textOf(path))}`);
}

const textOf = (path: Path): string => (typeof path === 'string' ? path : labelOf(typed(path)));

function typed(path: readonly (Key | number)[]): Key[] {
  return path.map((key) => (typeof key === 'number' ? BigInt(key) : key));
}

function* tensorsIn(value: Value, seen: Set<Tensor>): Generator<Tensor> {
  if (value instanceof LazyTensor) {
    if (!seen.has(value)) yield value;
    seen.add(value);
  } else if (Array.isArray(value)) for (const item of value) yield* tensorsIn(item, seen);
  else if (value instanceof Tuple || value instanceof Dict) {
    for (const item of value instanceof Dict ? value.values() : value.items) yield* tensorsIn(item, seen);
  }
}

function entryOf({ key, tags, kind, count, value }: Seen, above: readonly Key[]): Entry {
  const path = [...above, key];
  const common = { key, path, tags };
  if (kind !== 'leaf') return { ...common, kind, count, preview: previewOfItems(count!), tensor: undefined, value: undefined };
  const none = { count: undefined, tensor: undefined, value: undefined };
  if (value instanceof LazyTensor) return { ...common, ...none, kind: 'tensor', preview: previewOfTensor(value), tensor: value };
  return { ...common, ...none, kind: 'value', preview: previewOf(value!), value };
}

/** Whether a value of a tree is a tensor. */
export function isTensor(value: Value | undefined): value is Tensor {
  return value instanceof LazyTensor;
}
