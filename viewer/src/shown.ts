// What the page shows, of whatever format: the part of the face of the reader in `js/` that it uses. What that opens is
// one of these as it is.

import type { Key, Value } from '../../js/src/index.js';

export type { Key, Value };

/** Elements in C order; complex ones as real and imaginary part in turn. */
export interface Elements {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: ArrayLike<number> | BigInt64Array | BigUint64Array;
}

export type Pick = readonly (number | { start?: number; stop?: number; step?: number } | null)[];

export interface ShownTensor {
  readonly name: string;
  readonly label: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly nbytes: number;
  readonly chunkCount: number;
  readonly grid: readonly number[];
  readonly codec: string | undefined;
  /** Why there are no numbers to be shown; left out where there are. */
  readonly opaque?: string | undefined;
  /** In a patch: how it is made, and of what. Left out of other formats. */
  readonly form?: 'whole' | 'same' | 'xor';
  readonly source?: ShownTensor | undefined;
  /** How its checkpoint is called where that is the base of a patch, and the block size of that. */
  readonly home?: string;
  readonly block?: number;
  read(selection?: Pick, options?: { signal?: AbortSignal }): Promise<Elements>;
  verify?(options?: { signal?: AbortSignal; onProgress?: (progress: Progress) => void }): Promise<Fault[]>;
}

export interface ShownEntry {
  readonly key: Key;
  readonly path: readonly Key[];
  readonly kind: 'dict' | 'list' | 'tuple' | 'tensor' | 'value';
  readonly tags: readonly string[];
  readonly count: number | undefined;
  readonly preview: string;
  readonly tensor: ShownTensor | undefined;
  readonly value: Value | undefined;
}

export interface Progress {
  done: number;
  total: number;
}

/** What is wrong, and where. */
export interface Fault {
  readonly code: string;
  readonly message: string;
  readonly place: Where;
}

export interface Where {
  tensor?: string;
  chunk?: number;
  block?: number;
  offset?: number;
  object?: string;
  base?: string;
}

/** Something that is open. */
export interface Shown {
  readonly name: string;
  readonly format: 'ckptfmt' | 'safetensors' | 'gguf';
  /** Bytes of the file; undefined of a directory. */
  readonly size: number | undefined;
  /** Bytes that are checked, or else best read, as one. */
  readonly block: number;
  /** The algorithm of the digests, if there are any. */
  readonly digest: string | undefined;
  /** Words about the whole, for people. */
  readonly facts: readonly (readonly [string, string])[];
  readonly metadata: Value;
  readonly schema: { readonly id: string; readonly version: string } | null;
  /** Records of migrations, repairs and upgrades. */
  readonly provenance: Value;
  readonly tensorCount: number;
  /** Of a patch: the sha256 of its base, and whether that is open. */
  readonly patch?: { readonly base: string; readonly isOpen: boolean } | undefined;
  children(path: readonly Key[], options?: { start?: number; stop?: number; signal?: AbortSignal }): Promise<ShownEntry[]>;
  /** How many items the root has; undefined if it is no container. */
  readonly rootCount: number | undefined;
  tensors(options?: { signal?: AbortSignal }): AsyncIterable<ShownTensor>;
  verify?(options?: { signal?: AbortSignal; onProgress?: (progress: Progress) => void }): Promise<Fault[]>;
  close(): Promise<void>;
}

/** Whether a tensor of a patch is made of the base, which is not open. */
export const isLacking = ({ form, source }: ShownTensor): boolean => form !== undefined && form !== 'whole' && source === undefined;

/** A tensor, the one of the base that it is made of, and so on. */
export function* madeOf(tensor: ShownTensor): Generator<ShownTensor> {
  for (let one: ShownTensor | undefined = tensor; one !== undefined; one = one.source) yield one;
}
