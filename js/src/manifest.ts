// The manifest but for its tensors, chunk tables and tree: sections 5, 7 and 14.

import { isAlgorithm, DIGEST_SIZE, type Algorithm } from './digests.js';
import { CkptError, need } from './errors.js';
import { any, bin, bool, exactly, int, list, map, oneOf, orNil, str, uint, type Form } from './forms.js';
import { decode, lookUp, type Item, type ItemMap } from './msgpack.js';
import type { Layout, Record } from './record.js';
import type { Chains, CodecName } from './specs.js';

const PAGES = 'pages'; // the features that this reader knows
const PATCH = 'patch';

const HEAD = { format: list(uint), layout: str, requires: list(str) };
const BOTH = {
  ...HEAD, generator: str, digest: str, block: uint,
  schema: orNil(map({ id: str, version: str, fingerprint: bin })), metadata: any, tree: any, codecs: list(any),
};
const WHOLE = {
  ...BOTH,
  tensors: map({ name: list(str), dtype: list(str), shape: list(list(uint)), grid: list(list(uint)), codec: list(uint) }),
  parts: list(map({ object: orNil(str), size: orNil(uint), frame: orNil(bin), chunks: map({}) })),
};
const PAGED = { // [PAGE-001]
  ...BOTH,
  tensors: map({ first: list(str), count: bin, chunks: bin }),
  parts: list(map({ object: str, size: uint, frame: bin, chunks: (value: Item | undefined): value is null => value === null })),
  pages: map({ offset: uint, length: bin, sha256: bin }), plain_keys: bool,
};
const PLACEMENT = map({ tensor: bin, chunk: bin, count: bin, part: bin, step: bin });

const level = (value: Item | undefined): value is number => int(value) && value >= 0 && value <= 9;
const CODECS: { [name: string]: Form } = { // [ZARR-006]
  bytes: exactly({ endian: oneOf('little') }),
  zstd: exactly({ checksum: bool, level: int }),
  gzip: exactly({ level }),
  blosc: exactly({
    blocksize: int, clevel: level, cname: oneOf('zstd', 'lz4', 'lz4hc', 'blosclz', 'zlib', 'snappy'),
    shuffle: oneOf('noshuffle', 'shuffle', 'bitshuffle'), typesize: int,
  }),
};
const CODEC = exactly({ name: str, configuration: map({}) });

/** A manifest whose form, version and digest are right. */
export interface Manifest {
  readonly layout: Layout;
  readonly format: readonly [number, number];
  readonly requires: readonly string[];
  readonly generator: string;
  readonly digest: Algorithm;
  readonly block: number;
  readonly schema: ItemMap | null;
  readonly metadata: Item;
  readonly tree: Item;
  readonly chains: Chains;
  readonly isPaged: boolean;
  readonly isPatch: boolean;
  /** All of its keys. */
  readonly keys: ItemMap;
}

/** Decode a manifest, and check all but its tensors, parts and trees. [READ-008] */
export function parseManifest(bytes: Uint8Array, record: Record): Manifest {
  const keys = decodeKnown(bytes);
  need(map(HEAD)(keys), 'MAN-002', 'format, layout or requires are missing or of another type');
  const [format, layout, requires] = ['format', 'layout', 'requires'].map((key) => keys.get(key)) as [number[], string, string[]];
  need(String(format) === `1,${record.minor}`, 'MAN-005', `format ${format}, not that of the commit record`);
  need(layout === record.layout, 'LAY-006', `layout ${layout}, not that of the commit record`);
  const [isPaged, isPatch] = [requires.includes(PAGES), requires.includes(PATCH)];
  const isAlone = !isPatch || (layout === 'file' && record.minor >= 1 && requires.length === 1);
  need(isAlone, 'PATCH-001', 'a patch of another layout, of version 1.0, or with another feature');
  need(!isPaged || record.minor >= 1, 'PAGE-001', 'a paged manifest of version 1.0');
  for (const [key, form] of Object.entries(isPaged ? PAGED : WHOLE)) {
    need(form(keys.get(key)), 'MAN-002', `\`${key}\` is missing or of another type`);
  }
  const placed = layout === 'packed' && !isPaged ? PLACEMENT(keys.get('placement')) : !keys.has('placement');
  need(placed, 'MAN-002', '`placement` is in layout `packed` only, and there a map of five columns, unless the manifest is paged');
  const schema = keys.get('schema') as ItemMap | null;
  const { digest, block } = checkBlocks(keys, record.frame);
  need(schema === null || (schema.get('id') && schema.get('version')), 'SCH-001', 'schema id or version is empty');
  return {
    layout: record.layout, format: [1, record.minor], requires, generator: keys.get('generator') as string, digest, block,
    schema, metadata: keys.get('metadata')!, tree: keys.get('tree')!, chains: (keys.get('codecs') as Item[]).map(codecOf),
    isPaged, isPatch, keys,
  };
}

/** The map, once all that it requires is known, whatever other rules its keys break. [MAN-006] */
function decodeKnown(bytes: Uint8Array): ItemMap {
  const requires = lookUp(bytes, 'requires');
  for (const feature of list(str)(requires) ? requires : []) {
    const what = `it requires ${JSON.stringify(feature.slice(0, 100))}, which this reader does not know`;
    need(feature === PAGES || feature === PATCH, 'MAN-006', what, 'unknown-feature');
  }
  const keys = decode(bytes);
  need(keys instanceof Map, 'MAN-001', 'the manifest is no map');
  return keys;
}

function checkBlocks(keys: ItemMap, frame: Uint8Array): { digest: Algorithm; block: number } {
  const digest = keys.get('digest') as string;
  need(isAlgorithm(digest), 'BLK-002', `digest ${JSON.stringify(digest.slice(0, 100))}`, 'unknown-digest');
  need(frame.length === DIGEST_SIZE[digest], 'COM-007', `a frame digest of ${frame.length} bytes`);
  const block = Number(keys.get('block'));
  need(block >= 4096 && block <= 2 ** 30 && block % 4096 === 0, 'BLK-003', `block ${block}`);
  return { digest, block };
}

/** The codec after `bytes` in a chain. [ZARR-006] */
function codecOf(chain: Item): CodecName | undefined {
  const known = (codec: Item): codec is ItemMap => CODEC(codec)
    && Object.hasOwn(CODECS, codec.get('name') as string)
    && CODECS[codec.get('name') as string]!(codec.get('configuration'));
  const good = list(known as Form<ItemMap>)(chain) && (chain.length === 1 || chain.length === 2)
    && chain.every((codec, position) => (codec.get('name') === 'bytes') === (position === 0));
  if (!good) throw new CkptError('unknown-codec', 'a codec chain that this reader does not know [ZARR-006]');
  return chain[1]?.get('name') as CodecName | undefined;
}
