// The manifest but for its tree and chunk tables: sections 3 to 5, 7 and 14.

import { createHash } from 'node:crypto';
import { Fault, need } from './faults.js';
import { decode, encode } from './msgpack.js';

export const DIGEST_SIZE = { 'xxh3-128': 16, sha256: 32, blake3: 32 }; // [BLK-002]

/** Section 3: bytes of a storage element, logical elements in it, meaningful bits of each. */
export const DTYPES = new Map([
  [1, 1, 8, 'bool int8 uint8 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz'
    + ' float8_e5m2 float8_e5m2fnuz float8_e8m0fnu'],
  [2, 1, 16, 'int16 uint16 float16 bfloat16'],
  [4, 1, 32, 'int32 uint32 float32 complex32 bcomplex32'],
  [8, 1, 64, 'int64 uint64 float64 complex64'],
  [16, 1, 128, 'complex128'],
  [1, 1, 6, 'float6_e2m3fn float6_e3m2fn'],
  [1, 2, 4, 'float4_e2m1fn int4 uint4'],
  [1, 4, 2, 'int2 uint2'],
  [1, 8, 1, 'int1 uint1'],
].flatMap(([size, packed, bits, names]) => names.split(' ').map((name) => [name, { size, packed, bits }])));

export function dtypeOf(name) {
  need(DTYPES.has(name), 'DTYPE-001', `dtype ${name}`, 'unknown-dtype');
  return DTYPES.get(name);
}

/** A row of the columns of `tensors`, from sides that are checked BigInts; `codec` is the one after `bytes`. */
export class Tensor {
  constructor(index, name, dtype, shape, stored, grid, codec) {
    Object.assign(this, { index, name, dtype, codec });
    this.shape = shape.map((side) => (side < 1n << 53n ? Number(side) : side)); // exact, also where nothing can be read
    this.storageShape = stored.map(Number);
    this.grid = grid.map(Number); // the chunk shape, in storage elements
    this.chunkCounts = stored.map((side, axis) => Number(ceil(side, grid[axis]))); // [ZARR-003]
    this.chunkCount = this.chunkCounts.reduce((product, count) => product * count, 1);
    this.chunkSize = this.grid.reduce((product, side) => product * side, DTYPES.get(dtype).size); // [ZARR-007]
  }
}

const ceil = (side, step) => (side + step - 1n) / step;

// ---- the form of the tables of section 7; further keys of maps are ignored [MAN-003]

export const any = () => true;
export const str = (value) => typeof value === 'string';
export const bin = (value) => value instanceof Uint8Array;
export const int = (value) => typeof value === 'bigint';
export const uint = (value) => int(value) && value >= 0n;
export const list = (form) => (value) => Array.isArray(value) && value.every((item) => form(item));
export const map = (forms) => (value) => value instanceof Map
  && Object.entries(forms).every(([key, form]) => value.has(key) && form(value.get(key)));
export const orNil = (form) => (value) => value === null || form(value);
const oneOf = (...values) => (value) => values.includes(value);

const HEAD = { format: list(uint), layout: str, requires: list(str) };
const MANIFEST = {
  ...HEAD, generator: str, digest: str, block: uint,
  schema: orNil(map({ id: str, version: str, fingerprint: bin })), metadata: any, tree: any, codecs: list(any),
  tensors: map({ name: list(str), dtype: list(str), shape: list(list(uint)), grid: list(list(uint)), codec: list(uint) }),
  parts: list(map({ object: orNil(str), size: orNil(uint), frame: orNil(bin), chunks: map({}) })),
};
const PAGED = { // [PAGE-001]
  ...MANIFEST,
  tensors: map({ first: list(str), count: bin, chunks: bin }), parts: (value) => Array.isArray(value) && value.length === 0,
  pages: map({ offset: uint, length: bin, sha256: bin }), plain_keys: (value) => typeof value === 'boolean',
};
const PLACEMENT = { tensor: bin, chunk: bin, count: bin, part: bin, step: bin };

const level = (value) => int(value) && value >= 0n && value <= 9n;
const CODECS = { // [ZARR-006]
  bytes: { endian: oneOf('little') },
  zstd: { checksum: oneOf(true, false), level: int },
  gzip: { level },
  blosc: {
    blocksize: int, clevel: level, cname: oneOf('zstd', 'lz4', 'lz4hc', 'blosclz', 'zlib', 'snappy'),
    shuffle: oneOf('noshuffle', 'shuffle', 'bitshuffle'), typesize: int,
  },
};

/** What a manifest requires that this reader does not know, whatever rules its other keys break [MAN-006]. */
export function checkRequired(bytes) {
  let requires;
  try {
    requires = decode(bytes, false)?.get?.('requires');
  } catch (error) {
    if (error instanceof Fault) return; // told when it is decoded
    throw error;
  }
  for (const feature of list(str)(requires) ? requires : []) {
    need(feature === 'pages', 'MAN-006', `it requires ${feature}, which this reader does not know`, 'unknown-feature');
  }
}

/** What a reader looks at before the rest. */
export function checkHead(manifest, record) {
  need(map(HEAD)(manifest), 'MAN-002', 'format, layout or requires are missing or of another type');
  const [format, layout] = [manifest.get('format'), manifest.get('layout')];
  need(String(format) === String(record.version), 'MAN-005', `format ${format}, not that of the commit record`);
  need(layout === record.layout, 'LAY-006', `layout ${layout}, not that of the commit record`);
}

export const isPaged = (manifest) => manifest.get('requires').includes('pages');

/** The form of every item; digest and block size. */
export function checkBody(manifest, frame) {
  const paged = isPaged(manifest);
  const fits = !paged || (manifest.get('layout') === 'file' && manifest.get('format')[1] >= 1n);
  need(fits, 'PAGE-001', 'a paged manifest of another layout, or of version 1.0');
  for (const [key, form] of Object.entries(paged ? PAGED : MANIFEST)) {
    need(manifest.has(key) && form(manifest.get(key)), 'MAN-002', `\`${key}\` is missing or of another type`);
  }
  const placed = manifest.get('layout') === 'packed'
    ? map(PLACEMENT)(manifest.get('placement')) : !manifest.has('placement');
  need(placed, 'MAN-002', '`placement` is in layout `packed` only, and there a map of five columns');
  const digest = manifest.get('digest');
  need(Object.hasOwn(DIGEST_SIZE, digest), 'BLK-002', `digest ${digest}`, 'unknown-digest');
  need(frame.length === DIGEST_SIZE[digest], 'COM-001', `a frame digest of ${frame.length} bytes`);
  const block = manifest.get('block');
  need(block >= 4096n && block <= 1n << 30n && block % 4096n === 0n, 'BLK-003', `block ${block}`);
}

function checkChain(chain) {
  const known = (codec) => map({ name: str, configuration: map({}) })(codec)
    && codec.size === 2
    && Object.hasOwn(CODECS, codec.get('name'))
    && map(CODECS[codec.get('name')])(codec.get('configuration'))
    && codec.get('configuration').size === Object.keys(CODECS[codec.get('name')]).length;
  const good = list(known)(chain) && [1, 2].includes(chain.length)
    && chain.every((codec, position) => (codec.get('name') === 'bytes') === (position === 0));
  need(good, 'ZARR-006', 'a codec chain that this reader does not know', 'unknown-codec');
  return chain;
}

export function chainsOf(manifest) {
  return manifest.get('codecs').map(checkChain);
}

/** The tensors of all rows; those of kinds, of which many tensors may be, have no names. */
export function tensorsOf(columns, chains) {
  const rest = ['dtype', 'shape', 'grid', 'codec'].map((key) => columns.get(key));
  const names = columns.get('name') ?? rest[0].map(() => '');
  need(rest.every((column) => column.length === names.length), 'MAN-007', 'the columns of `tensors` differ in length');
  if (columns.has('name')) checkNames(names);
  return names.map((name, index) => {
    const [dtype, shape, grid, codec] = rest.map((column) => column[index]);
    const { size, packed } = dtypeOf(dtype);
    need(shape.length <= 64, 'LIM-002', `${name} has rank ${shape.length}`, 'limit-exceeded');
    need(shape.every((side) => side < 1n << 63n), 'LIM-002', `${name} has a side of 2⁶³ or more`);
    need(grid.length === shape.length, 'MAN-008', `${name} has rank ${shape.length}, its grid ${grid.length}`);
    need(codec < BigInt(chains.length), 'MAN-002', `${name} has codec ${codec} of ${chains.length}`);
    // [DTYPE-003]
    const stored = shape.map((side, axis) => (axis < shape.length - 1 ? side : ceil(side, BigInt(packed))));
    const fits = grid.every((side, axis) => side >= 1n && (side <= stored[axis] || side === 1n));
    need(fits, 'ZARR-002', `${name} has the grid ${grid}`);
    const bytes = (sides) => sides.reduce((product, side) => product * side, BigInt(size));
    const small = shape.includes(0n) || (bytes(grid) < 1n << 62n && bytes(stored) < 1n << 62n);
    need(small, 'LIM-004', `${name} has 2⁶² bytes or more`);
    return new Tensor(index, name, dtype, shape, stored, grid, chains[Number(codec)].at(1)?.get('name'));
  });
}

/** [NAME-006] */
function checkNames(names) {
  const whole = new Set(names);
  need(whole.size === names.length, 'NAME-006', 'two tensors have one name');
  need(!whole.has('') || names.length === 1, 'NAME-006', 'the empty name is not the only one');
  for (const name of names) {
    need(name === '' || isPath(name), 'NAME-006', `the name ${name.slice(0, 100)}`);
    for (let at = name.indexOf('/'); at >= 0; at = name.indexOf('/', at + 1)) {
      need(!whole.has(name.slice(0, at)), 'NAME-006', `${name} lies beneath another name`);
    }
  }
}

/** Whether a name is made of segments as NAME-006 wants them. */
export function isPath(name) {
  return name.length <= 65000 && name.split('/').every(
    (segment) => /^[A-Za-z0-9_.~-]+$/.test(segment) && !/^(\.+$|__|zarr\.json$)/.test(segment));
}

export function checkSchema(schema) {
  need(schema === null || (schema.get('id') && schema.get('version')), 'SCH-001', 'schema id or version is empty');
}

/** [SCH-002] */
export function checkFingerprint(schema, tensors) {
  if (schema === null) return;
  const rows = tensors.map(({ name, dtype, shape }) => [name, dtype, shape]);
  rows.sort(([one], [two]) => (one < two ? -1 : 1)); // names are ASCII and distinct
  const fingerprint = createHash('sha256').update(encode(rows)).digest();
  need(fingerprint.equals(schema.get('fingerprint')), 'SCH-002', "the schema's fingerprint is another");
}
