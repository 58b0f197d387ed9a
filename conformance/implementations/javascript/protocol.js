// The operations of the protocol of the conformance suite (PROTOCOL.md), by the package `ckptfmt` of js/. It runs in Node
// and in a browser: `open` is how either opens what a request calls `file`.

import { CkptError, Complex, Dict, NaNBits, Scalar, Tuple, isTensor } from '../../../js/dist/index.js';

const FEATURES = ['reader', 'unverified', 'verify', 'pages', 'patch', 'layout:file', 'layout:loose', 'layout:packed',
  'digest:xxh3-128', 'digest:sha256', 'digest:blake3', 'codec:zstd', 'codec:gzip', 'codec:blosc'];
const INLINE = 1024; // bytes of a tensor that are given as hex

/** A function that answers requests, one after another. */
export function answering(name, open) {
  let checkpoint;

  const opened = async (file, bases) => {
    await checkpoint?.close();
    checkpoint = undefined;
    checkpoint = await open(file, bases);
  };

  const operations = {
    hello: () => ({ name, version: '1.2.0', features: FEATURES }),
    open: async ({ file, bases }) => {
      await opened(file, bases);
      return {};
    },
    list: async () => ({
      tree: await described(await checkpoint.tree(), () => ({})),
      metadata: await described(checkpoint.metadata),
      schema: checkpoint.schema,
      unknown_tags: checkpoint.unknownTags,
    }),
    read: async ({ path, verify = true }) => {
      const whole = path.length === 0 ? await checkpoint.tree() : await checkpoint.value(path.map(keyOf));
      const value = await described(whole, async (tensor) => content((await tensor.readRaw(undefined, { verify })).data));
      return { value, unknown_tags: checkpoint.unknownTags };
    },
    read_slice: async ({ path, slices, verify = true }) => {
      const tensor = await checkpoint.value(path.map(keyOf));
      const fits = isTensor(tensor) && slices.length === tensor.shape.length && slices.every(
        ([start, stop, step], axis) => start >= 0 && start <= stop && stop <= tensor.shape[axis] && step >= 1);
      if (!fits) throw new CkptError('bad-index', 'slices do not fit what stands at the path');
      const selection = slices.map(([start, stop, step]) => ({ start, stop, step }));
      const { dtype, shape, data } = await tensor.readRaw(selection, { verify });
      return { value: { type: 'tensor', dtype, shape, ...await content(data) } };
    },
    verify: async ({ file }) => {
      await opened(file);
      return { damage: (await checkpoint.verify()).map(errorOf) };
    },
  };

  return async ({ id, op, ...request }) => {
    try {
      return { id, ...(Object.hasOwn(operations, op) ? { ok: await operations[op](request) } : { unsupported: op }) };
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      return { id, error: errorOf(error) };
    }
  };
}

const errorOf = ({ code, message, place }) => ({ code, message, ...place });
const keyOf = (key) => (typeof key === 'string' ? key : BigInt(key.int));
const keyOut = (key) => (typeof key === 'string' ? key : { int: String(key) });
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

function bits(float) {
  const value = float instanceof NaNBits ? float.bits
    : Number.isNaN(float) ? 0x7ff8000000000000n : new BigUint64Array(Float64Array.of(float).buffer)[0];
  return value.toString(16).padStart(16, '0');
}

async function content(bytes) {
  if (bytes.length <= INLINE) return { hex: hex(bytes) };
  return { sha256: hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))) };
}

/** A value as the protocol has it; `bytesOf` gives what stands for the bytes of a tensor. */
async function described(value, bytesOf) {
  const all = async (items) => {
    const out = [];
    for (const item of items) out.push(await described(item, bytesOf));
    return out;
  };
  if (value === null) return { type: 'none' };
  if (typeof value === 'boolean') return { type: 'bool', value };
  if (typeof value === 'bigint') return { type: 'int', value: String(value) };
  if (typeof value === 'string') return { type: 'str', value };
  if (typeof value === 'number' || value instanceof NaNBits) return { type: 'float', bits: bits(value) };
  if (value instanceof Complex) return { type: 'complex', bits: bits(value.real) + bits(value.imaginary) };
  if (value instanceof Scalar) return { type: 'scalar', dtype: value.dtype, hex: hex(value.bytes) };
  if (isTensor(value)) {
    return { type: 'tensor', index: value.index, dtype: value.dtype, shape: value.sides, ...await bytesOf(value) };
  }
  if (value instanceof Dict) {
    const items = await all(value.values());
    return { type: 'dict', items: [...value.keys()].map((key, i) => [keyOut(key), items[i]]) };
  }
  if (value instanceof Tuple) return { type: 'tuple', items: await all(value.items) };
  return Array.isArray(value) ? { type: 'list', items: await all(value) } : { type: 'bytes', hex: hex(value) };
}

const MARK = '\ue000bigint:'; // of a private use: replies hold no such string

/** JSON in which a BigInt is a number with all its digits. */
export function json(value) {
  return JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? `${MARK}${item}` : item))
    .replaceAll(new RegExp(`"${MARK}(\\d+)"`, 'g'), '$1');
}
