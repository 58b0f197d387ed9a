// The public face: what `open` takes and gives.

import type { CkptError } from './errors.js';
import type { Key, Value } from './values.js';

/** What `open` takes besides what is to be opened. */
export interface OpenOptions {
  /** Ends the opening, and every later read of this checkpoint, with the signal's reason. */
  signal?: AbortSignal;
  /** Another fetch, such as one that signs requests. */
  fetch?: typeof globalThis.fetch;
  /** Headers of every request, such as `authorization`. */
  headers?: Record<string, string>;
  /** Whether digests are checked as blocks are read (the default). False must be asked for. [BLK-006] */
  verify?: boolean;
  /** Bytes of a manifest, part manifest or page; 1 GiB if left out. [LIM-001] */
  maxManifestBytes?: number;
  /** Bytes that one call may decode beyond 16 times what is stored; 1 GiB if left out. [LIM-008] */
  maxDecodedBytes?: number;
  /** Of a patch: what its base is among, and the base of that, if it is a patch, too. What is no patch takes none. */
  base?: Openable | Checkpoint | readonly (Openable | Checkpoint)[];
  /** Patches that are read one through another; 8 if left out. [PATCH-009] */
  maxPatches?: number;
  /** Bytes of a file that is read as a whole where a server has no range requests; 32 MiB if left out. */
  maxWholeBytes?: number;
  /** Told of each request once its headers are there. */
  onRequest?: (request: RequestMade) => void;
}

/** A request that was made. */
export interface RequestMade {
  url: string;
  method: 'GET' | 'HEAD';
  /** The Range header; undefined where none was sent. */
  range: string | undefined;
  status: number;
}

/** Where the bytes of a checkpoint are: one file, whose object is '', or a directory of objects by path. */
export interface Source {
  readonly kind: 'file' | 'directory';
  /** How it is called in messages. */
  readonly label: string;
  /** Bytes that a request may bring along at little cost. */
  readonly readAhead: number;
  /** Bytes of an object; throws CkptError `missing-object` where it is not there. */
  size(object: string, signal?: AbortSignal): Promise<number>;
  /** Bytes of an object, fewer than `length` only where the object ends. */
  read(object: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** The last `length` bytes of an object, or all of it, and its size: one request where it can be one. */
  tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }>;
  close(): Promise<void>;
}

/** Objects of a directory, by path, as a dropped folder has them. */
export type Objects = ReadonlyMap<string, Blob | Uint8Array>;

/** What can be opened; a string is a URL, or in Node also a path. */
export type Openable = string | URL | Blob | Uint8Array | ArrayBuffer | Objects | Source;

/** A path: its text (`model/wte`), or its keys, which are never ambiguous; numbers stand for int keys and positions. */
export type Path = string | readonly (Key | number)[];

/** An open checkpoint. Nothing of a tensor is read before it is asked for. */
export interface Checkpoint {
  readonly layout: 'file' | 'packed' | 'loose';
  /** Version of the format: major, minor. */
  readonly format: readonly [number, number];
  /** The program that wrote it. */
  readonly generator: string;
  /** Algorithm of the digests of blocks. */
  readonly digest: 'xxh3-128' | 'sha256' | 'blake3';
  /** Block size in bytes. */
  readonly block: number;
  /** Features that a reader must know. */
  readonly requires: readonly string[];
  readonly schema: { readonly id: string; readonly version: string } | null;
  readonly metadata: Value;
  /** Records of migrations, repairs and upgrades, the oldest first; null if there are none. [MIG-017] */
  readonly provenance: Value;
  /** sha256 of the manifest in hexadecimal: the identity of this checkpoint. [SEC-004] */
  readonly sha256: string;
  /** Of a patch (section 7.4): the sha256 of the manifests of its base, and of what it was made from. */
  readonly patch: { readonly base: string; readonly result: string | null } | null;
  /** What a patch is read through: null without `base`, or where it is none. */
  readonly base: Checkpoint | null;
  readonly tensorCount: number;
  /** Names of tags that were met, and whose children were given in their place. [TAG-001] */
  readonly unknownTags: readonly string[];

  /** The tensor at a path, with a name, or with an index. Throws CkptError `no-such-path`. */
  tensor(which: Path | number, options?: ReadOptions): Promise<Tensor>;
  /** All tensors, or those at and below a path, in their order; a paged manifest is read as far as it is asked for. */
  tensors(options?: { prefix?: Path; signal?: AbortSignal }): AsyncIterable<Tensor>;
  /** What stands at a path: plain values, and a Tensor where a tensor stands. With `tags`, tagged values as such. */
  value(path: Path, options?: TreeOptions): Promise<Value>;
  /** The whole tree. */
  tree(options?: TreeOptions): Promise<Value>;
  /** What stands directly below a path, for a view that unfolds; [] is the root. */
  children(path: Path, options?: ChildrenOptions): Promise<Entry[]>;
  /** The row of what stands at a path itself; its key is the last of the path. */
  entry(path: Path, options?: { signal?: AbortSignal }): Promise<Entry>;
  /**
   * Look at every byte, and give all that is damaged: [] if it is whole. [BLK-007] Of a patch that is what is stored in it,
   * and all of its `base`; where that is null, nobody has looked at the base. [PATCH-016]
   */
  verify(options?: VerifyOptions): Promise<Damage[]>;
  close(): Promise<void>;
}

export interface TreeOptions {
  /** Give tagged values as Tagged; if left out, a child stands in the place of its tag. */
  tags?: boolean;
  signal?: AbortSignal;
}

export interface ChildrenOptions {
  /** The first child wanted, and the one that is not wanted any more: of many thousands only some are shown. */
  start?: number;
  stop?: number;
  signal?: AbortSignal;
}

/** One row of a tree view. */
export interface Entry {
  readonly key: Key;
  readonly path: readonly Key[];
  readonly kind: 'dict' | 'list' | 'tuple' | 'tensor' | 'value';
  /** Names of the tags around it, the outermost first. */
  readonly tags: readonly string[];
  /** Items of a dict, list or tuple. */
  readonly count: number | undefined;
  /** A few words: `float32 [2, 3]`, `"text"`, `3 items`. Control characters are escaped. [SEC-005] */
  readonly preview: string;
  readonly tensor: Tensor | undefined;
  /** A plain value that is no container. */
  readonly value: Value | undefined;
}

/** What is wrong, one entry for each block, chunk, page, part or frame. */
export type Damage = CkptError;

export interface VerifyOptions {
  onProgress?: (progress: { done: number; total: number }) => void;
  signal?: AbortSignal;
}

export interface ReadOptions {
  /** Whether digests are checked; as the checkpoint was opened if left out. */
  verify?: boolean;
  signal?: AbortSignal;
}

/** An index takes an axis away, null is all of it; negative ones count from the end; what is left out is all. */
export type Selection = readonly (number | { start?: number; stop?: number; step?: number } | null)[];

/** A tensor of an open checkpoint, whose elements are not read yet. Aliases are one and the same object. [TREE-010] */
export interface Tensor {
  readonly index: number;
  /** Its name under `tensors/` (section 4). */
  readonly name: string;
  /** The label of the path at which it stands first. [BLK-009] */
  readonly label: string;
  readonly dtype: Dtype;
  /** Sides; one beyond 2^53 (which nobody can read) is the nearest number: `sides` is exact. */
  readonly shape: readonly number[];
  readonly sides: readonly bigint[];
  /** Number of elements. */
  readonly size: number;
  /** Bytes of all elements as they are stored raw (section 3). */
  readonly nbytes: number;
  /** Number of chunks (of one that is the same as one of the base: none), and the sides of each, in storage elements. */
  readonly chunkCount: number;
  readonly grid: readonly number[];
  /** undefined: raw. */
  readonly codec: 'gzip' | 'zstd' | 'blosc' | undefined;
  /** In a patch: stored in it, the same as one of the base, or one of the base with bits that differ. All others are whole. */
  readonly form: 'whole' | 'same' | 'xor';
  /** The tensor of the base that it is made of; undefined if it is whole, or without a base. */
  readonly source: Tensor | undefined;
  /** How its checkpoint is called in messages, and where damage is of a base, in `place.base`; and the block size of that. */
  readonly home: string;
  readonly block: number;
  /** The elements, or a slice of them: only the blocks that hold them are read. */
  read(selection?: Selection, options?: ReadOptions): Promise<NDArray>;
  /** The same, bit for bit as stored: C order, little-endian, packed below 8 bits. */
  readRaw(selection?: Selection, options?: ReadOptions): Promise<RawArray>;
  /** Look at every byte of it, and give all that is damaged. */
  verify(options?: VerifyOptions): Promise<Damage[]>;
}

export type Dtype =
  | 'bool' | 'int8' | 'int16' | 'int32' | 'int64' | 'uint8' | 'uint16' | 'uint32' | 'uint64'
  | 'float16' | 'float32' | 'float64' | 'bfloat16' | 'complex32' | 'bcomplex32' | 'complex64' | 'complex128'
  | 'float8_e3m4' | 'float8_e4m3' | 'float8_e4m3b11fnuz' | 'float8_e4m3fn' | 'float8_e4m3fnuz' | 'float8_e5m2'
  | 'float8_e5m2fnuz' | 'float8_e5m3fnu' | 'float8_e8m0fnu' | 'float6_e2m3fn' | 'float6_e3m2fn' | 'float4_e2m1fn'
  | 'int4' | 'uint4' | 'int2' | 'uint2' | 'int1' | 'uint1';

export type TypedArray =
  | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array
  | Float32Array | Float64Array;

/**
 * Elements in C order, in the array that JavaScript has for them: float16, bfloat16 and smaller floats exactly as
 * Float32Array, integers below 8 bits unpacked, bool as 0 and 1, complex as real and imaginary part in turn.
 */
export interface NDArray {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

/** Elements as they are stored; unused bits are 0. [DTYPE-010] */
export interface RawArray {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}
