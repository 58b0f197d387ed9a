// Speaks the protocol of the conformance suite (PROTOCOL.md): JSON lines on standard input and output.

import { createHash, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { DIGESTS } from './chunk.js';
import { KNOWN } from './codecs.js';
import { need } from './faults.js';
import { DTYPES } from './manifest.js';
import { Checkpoint, Complex, Fault, Float, Scalar, Tensor, Tuple, Unsupported, repack } from './reader.js';
import { verify } from './verify.js';

const FEATURES = ['reader', 'unverified', 'verify', 'pages', 'layout:file', 'layout:loose', 'layout:packed',
  ...Object.keys(DIGESTS).map((name) => `digest:${name}`), ...KNOWN.map((name) => `codec:${name}`)];
const INLINE = 1024; // bytes of a tensor that are given as hex

let checkpoint;

const OPERATIONS = {
  hello: () => ({ name: 'ckptfmt-javascript', version: '1.0.0', features: FEATURES }),

  open: ({ file }) => {
    checkpoint?.close();
    checkpoint = undefined;
    checkpoint = new Checkpoint(file);
    return {};
  },

  list: () => ({
    tree: describe(checkpoint.tree, () => ({})),
    metadata: describe(checkpoint.metadata),
    schema: checkpoint.schema,
    unknown_tags: checkpoint.unknownTags,
  }),

  read: ({ path, verify = true }) => ({
    value: describe(checkpoint.at(path.map(keyOf)), (tensor) => content(checkpoint.read(tensor, undefined, { verify }))),
    unknown_tags: checkpoint.unknownTags,
  }),

  read_slice: ({ path, slices, verify = true }) => {
    const tensor = checkpoint.at(path.map(keyOf));
    need(tensor instanceof Tensor, 'PROTOCOL.md', 'no tensor stands at the path', 'bad-index');
    const bytes = checkpoint.read(tensor, slices, { verify });
    const shape = slices.map(([start, stop, step]) => Math.ceil((stop - start) / step));
    return { value: { type: 'tensor', dtype: tensor.dtype, shape, ...content(bytes) } };
  },

  verify: ({ file }) => {
    OPERATIONS.open({ file });
    return { damage: verify(checkpoint).map(errorOf) };
  },
};

const keyOf = (key) => (typeof key === 'string' ? key : BigInt(key.int));
const keyOut = (key) => (typeof key === 'string' ? key : { int: String(key) });
const bits = (float) => float.bits.toString(16).padStart(16, '0');

function content(bytes) {
  return bytes.length <= INLINE
    ? { hex: bytes.toString('hex') } : { sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** A value as the protocol has it; `bytesOf` gives what stands for the bytes of a tensor. */
function describe(value, bytesOf) {
  const all = (items) => items.map((item) => describe(item, bytesOf));
  if (value === null) return { type: 'none' };
  if (typeof value === 'boolean') return { type: 'bool', value };
  if (typeof value === 'bigint') return { type: 'int', value: String(value) };
  if (typeof value === 'string') return { type: 'str', value };
  if (value instanceof Float) return { type: 'float', bits: bits(value) };
  if (value instanceof Complex) return { type: 'complex', bits: bits(value.real) + bits(value.imaginary) };
  if (value instanceof Scalar) {
    const { bits: width } = DTYPES.get(value.dtype);
    const bytes = width < 8 ? repack(value.bytes, 1, { start: 0, step: 1, count: 1 }, width, 1) : value.bytes;
    return { type: 'scalar', dtype: value.dtype, hex: bytes.toString('hex') };
  }
  if (value instanceof Tensor) {
    return { type: 'tensor', index: value.index, dtype: value.dtype, shape: value.shape, ...bytesOf(value) };
  }
  if (value instanceof Map) {
    return { type: 'dict', items: [...value].map(([key, item]) => [keyOut(key), describe(item, bytesOf)]) };
  }
  if (value instanceof Tuple) return { type: 'tuple', items: all(value.items) };
  return Array.isArray(value) ? { type: 'list', items: all(value) } : { type: 'bytes', hex: value.toString('hex') };
}

function reply({ op, ...request }) {
  try {
    return Object.hasOwn(OPERATIONS, op) ? { ok: OPERATIONS[op](request) } : { unsupported: op };
  } catch (error) {
    if (error instanceof Unsupported) return { unsupported: error.feature };
    if (!(error instanceof Fault)) throw error;
    return { error: errorOf(error) };
  }
}

function errorOf({ code, message, where }) {
  const named = checkpoint !== undefined && where.tensor !== undefined;
  return { code, message, ...where, ...(named && { tensor: checkpoint.labelOf(where.tensor) }) };
}

const MARK = randomUUID();

/** JSON in which a BigInt is a number with all its digits. */
function json(value) {
  return JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? `${MARK}${item}` : item))
    .replaceAll(new RegExp(`"${MARK}(\\d+)"`, 'g'), '$1');
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.op === 'bye') break;
  process.stdout.write(`${json({ id: request.id, ...reply(request) })}\n`);
}
