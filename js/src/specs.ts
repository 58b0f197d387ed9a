// What the manifest says of each tensor: the columns of `tensors` (section 7), checked.

import type { Dtype } from './api.js';
import { digestOf } from './digests.js';
import { infoOf } from './dtypes.js';
import { CkptError } from './errors.js';
import { Encoder, type ItemMap } from './msgpack.js';
import { checkNames } from './names.js';
import type { TensorForm } from './patch.js';

export type CodecName = 'gzip' | 'zstd' | 'blosc';

type Side = number | bigint; // a bigint only where a number is not exact

/** Dtype, shape and chunks of a tensor, or of all tensors of one kind. */
export interface Kind {
  readonly dtype: Dtype;
  readonly sides: readonly Side[];
  readonly shape: readonly number[];
  /** Of storage elements. */
  readonly storageShape: readonly number[];
  /** The chunk shape, of storage elements. */
  readonly grid: readonly number[];
  readonly chunkCounts: readonly number[];
  readonly chunkCount: number;
  /** Bytes of a raw chunk [ZARR-007]. */
  readonly chunkSize: number;
  readonly codec: CodecName | undefined;
}

/** A tensor: its kind, number and name, and in a patch how it is made. */
export class Spec implements Kind {
  constructor(readonly kind: Kind, readonly index: number, readonly name: string, readonly form: TensorForm = 'whole') {}

  get dtype(): Dtype { return this.kind.dtype; }
  get sides(): readonly Side[] { return this.kind.sides; }
  get shape(): readonly number[] { return this.kind.shape; }
  get storageShape(): readonly number[] { return this.kind.storageShape; }
  get grid(): readonly number[] { return this.kind.grid; }
  get chunkCounts(): readonly number[] { return this.kind.chunkCounts; }
  get chunkCount(): number { return this.form === 'same' ? 0 : this.kind.chunkCount; } // [PATCH-003]
  get chunkSize(): number { return this.kind.chunkSize; }
  get codec(): CodecName | undefined { return this.kind.codec; }
}

/** The codec after `bytes` of each chain. */
export type Chains = readonly (CodecName | undefined)[];

const RANK = 64;
const EXACT = 2 ** 52;
const BYTES = 2n ** 62n;
const END = 2n ** 63n;

/** The kinds of all rows; of rows that are equal it is one. */
export function kindsOf(columns: ItemMap, chains: Chains): Kind[] {
  const [dtypes, shapes, grids, codecs] = ['dtype', 'shape', 'grid', 'codec'].map((key) => columns.get(key)) as
    [string[], Side[][], Side[][], Side[]];
  const even = [shapes, grids, codecs].every(({ length }) => length === dtypes.length);
  if (!even) throw new CkptError('bad-manifest', 'the columns of `tensors` differ in length [MAN-007]');
  const known = new Map<string, Kind>();
  return dtypes.map((dtype, row) => {
    const key = `${dtype} ${shapes[row]} ${grids[row]} ${codecs[row]}`;
    let kind = known.get(key);
    if (kind === undefined) known.set(key, kind = kindOf(dtype, shapes[row]!, grids[row]!, codecs[row]!, chains));
    return kind;
  });
}

/** The tensors of all rows of a manifest that is not paged. */
export function specsOf(columns: ItemMap, chains: Chains): Spec[] {
  const names = columns.get('name') as string[];
  const kinds = kindsOf(columns, chains);
  if (kinds.length !== names.length) throw new CkptError('bad-manifest', 'the columns of `tensors` differ in length [MAN-007]');
  checkNames(names);
  return kinds.map((kind, index) => new Spec(kind, index, names[index]!));
}

function kindOf(dtype: string, sides: Side[], grid: Side[], codec: Side, chains: Chains): Kind {
  const { size, packed } = infoOf(dtype);
  if (sides.length > RANK) throw new CkptError('limit-exceeded', `a tensor of rank ${sides.length} [LIM-002]`);
  if (sides.some((side) => side >= END)) throw bad(`a side of 2⁶³ or more in ${sides} [LIM-002]`);
  if (grid.length !== sides.length) throw bad(`a tensor has rank ${sides.length}, its grid ${grid.length} [MAN-008]`);
  if (codec >= chains.length) throw bad(`codec ${codec} of ${chains.length} [MAN-002]`);
  const last = sides.length - 1;
  const stored = sides.map((side, axis) => (axis === last ? ceil(side, packed) : side)); // [DTYPE-003]
  const fits = grid.every((side, axis) => side >= 1 && (side <= stored[axis]! || side === 1));
  if (!fits) throw bad(`the grid ${grid} of a storage shape ${stored} [ZARR-002]`);
  if (!sides.includes(0) && (isHuge(grid, size) || isHuge(stored, size))) throw bad('a tensor has 2⁶² bytes or more [LIM-004]');
  const chunkCounts = stored.map((side, axis) => Number(ceil(side, grid[axis]!))); // [ZARR-003]
  return {
    dtype: dtype as Dtype, sides, shape: sides.map(Number), storageShape: stored.map(Number), grid: grid.map(Number),
    chunkCounts, chunkCount: chunkCounts.reduce((product, count) => product * count, 1),
    chunkSize: grid.reduce<number>((product, side) => product * Number(side), size), codec: chains[Number(codec)],
  };
}

function bad(what: string): CkptError {
  return new CkptError('bad-manifest', what.slice(0, 500));
}

function ceil(side: Side, step: Side): Side {
  if (side < EXACT && step < EXACT) {
    const quotient = Math.floor(Number(side) / Number(step));
    return quotient * Number(step) < side ? quotient + 1 : quotient;
  }
  return (BigInt(side) + BigInt(step) - 1n) / BigInt(step);
}

/** Whether an array with these sides has 2⁶² bytes or more. */
function isHuge(sides: readonly Side[], size: number): boolean {
  const about = sides.reduce<number>((product, side) => product * Number(side), size);
  return about >= EXACT && sides.reduce<bigint>((product, side) => product * BigInt(side), BigInt(size)) >= BYTES;
}

/** Refuse another fingerprint than that of the tensors. [SCH-002] */
export async function checkFingerprint(schema: ItemMap | null, specs: readonly Spec[]): Promise<void> {
  if (schema === null) return;
  const rows = [...specs].sort((one, two) => (one.name < two.name ? -1 : 1)); // names are ASCII, and distinct
  const out = new Encoder();
  out.array(rows.length);
  for (const { name, dtype, sides } of rows) {
    out.array(3);
    out.str(name);
    out.str(dtype);
    out.array(sides.length);
    sides.forEach((side) => out.uint(side));
  }
  const found = (await digestOf('sha256'))(out.bytes());
  const wanted = schema.get('fingerprint') as Uint8Array;
  const right = found.length === wanted.length && found.every((byte, i) => byte === wanted[i]);
  if (!right) throw bad("the schema's fingerprint is another [SCH-002]");
}
