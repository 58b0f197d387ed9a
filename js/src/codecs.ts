// From the stored bytes of a compressed chunk to its elements (section 5). Each decoder is loaded when it is first used.
// What surrounds a stream is checked here, as libraries are lenient about it [ZARR-016].

import { innerOf, unblosc, type Inner } from './blosc.js';
import { view } from './bytes.js';
import { Damaged, demand } from './damaged.js';
import { CkptError } from './errors.js';
import { allocate } from './limits.js';
import type { CodecName } from './specs.js';

type Decoder = (bytes: Uint8Array, size: number) => Promise<Uint8Array>;

const DECODERS: Record<CodecName, Decoder> = { gzip: gunzip, zstd: unzstd, blosc };
const LARGEST = 2 ** 30; // bytes of a chunk that WebAssembly is asked to decode: it has one small memory

/** The `size` bytes that a chunk decodes to [ZARR-011]; `damaged` makes the error for bytes that do not. */
export async function decompress(
  codec: CodecName, bytes: Uint8Array, size: number, damaged: (what: string) => CkptError,
): Promise<Uint8Array> {
  if (codec !== 'gzip' && size + bytes.length > LARGEST) {
    throw new CkptError('limit-exceeded', `a ${codec} chunk of ${size} bytes; at most ${LARGEST} with what is stored`);
  }
  try {
    const data = await DECODERS[codec](bytes, size);
    demand(data.length === size, `${data.length} bytes instead of ${size}`);
    return data;
  } catch (error) {
    if (error instanceof Damaged) throw damaged(`${error.message} [ZARR-016]`);
    throw error;
  }
}

async function library<T>(name: string, load: Promise<T>): Promise<T> {
  try {
    return await load;
  } catch (error) {
    const advice = "a page's Content-Security-Policy has to allow 'wasm-unsafe-eval', and for zstd connect-src data:";
    throw new CkptError('unknown-codec', `the decoder of ${name} cannot be loaded: ${advice}`, {}, { cause: error });
  }
}

/** One gzip member (RFC 1952), and nothing after it. */
async function gunzip(bytes: Uint8Array, size: number): Promise<Uint8Array> {
  return (await inflater('gzip'))(bytes, size);
}

/** Streams of DEFLATE, with a header of gzip or of zlib, which are all that the bytes have. */
async function inflater(form: 'gzip' | 'zlib'): Promise<Inner> {
  const pako = await library(form, import('pako'));
  return (bytes, size) => {
    const stream = new pako.ZStream();
    stream.input = bytes;
    stream.avail_in = bytes.length;
    stream.output = allocate(size) as Uint8Array<ArrayBuffer>;
    stream.avail_out = size; // never more than that
    demand(pako.zlibInflateInit2(stream, (form === 'gzip' ? 16 : 0) + 15) === pako.Z_OK, `no ${form} stream`);
    const status = pako.zlibInflate(stream, pako.Z_FINISH);
    demand(status === pako.Z_STREAM_END, `${form}: ${stream.msg || 'more than it should be, or cut off'}`);
    demand(stream.avail_in === 0, `the ${form} stream is not the whole chunk`);
    return stream.output.subarray(0, stream.total_out);
  };
}

let zstd: Promise<import('zstddec').ZSTDDecoder> | undefined;

/** Of a damaged frame it gives no bytes at all. */
async function zstdDecoder(): Promise<Inner> {
  zstd ??= import('zstddec').then(async ({ ZSTDDecoder }) => {
    const decoder = new ZSTDDecoder();
    await decoder.init();
    return decoder;
  });
  const decoder = await library('zstd', zstd);
  return (bytes, size) => decoder.decode(bytes, size);
}

/** One Zstandard frame (RFC 8878) that declares its content size, and nothing after it. */
async function unzstd(bytes: Uint8Array, size: number): Promise<Uint8Array> {
  checkFrame(bytes, size);
  return (await zstdDecoder())(bytes, size);
}

function checkFrame(bytes: Uint8Array, size: number): void {
  const data = view(bytes);
  demand(bytes.length >= 9 && data.getUint32(0, true) === 0xfd2fb528, 'no zstd frame');
  const single = (bytes[4]! >> 5) & 1;
  const width = [single, 2, 4, 8][bytes[4]! >> 6]!; // of the content size
  let at = 5 + (1 - single) + [0, 1, 2, 4][bytes[4]! & 3]! + width;
  demand(width > 0 && at <= bytes.length, 'the zstd frame does not declare its content size');
  const declared = width === 8 ? Number(data.getBigUint64(at - 8, true)) : width === 4 ? data.getUint32(at - 4, true)
    : width === 2 ? data.getUint16(at - 2, true) + 256 : bytes[at - 1]!;
  demand(declared === size, `the zstd frame declares ${declared} bytes instead of ${size}`);
  for (let last = 0; last === 0;) {
    demand(at + 3 <= bytes.length, 'the zstd frame ends early');
    const head = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
    last = head & 1;
    at += 3 + (((head >> 1) & 3) === 1 ? 1 : head >> 3); // a block of one repeated byte holds just that
  }
  demand(at + (bytes[4]! & 4) === bytes.length, 'the zstd frame is not the whole chunk');
}

/** One buffer of Blosc 1. */
async function blosc(bytes: Uint8Array, size: number): Promise<Uint8Array> {
  const name = innerOf(bytes);
  const inner = name === undefined ? none : name === 'zlib' ? await inflater('zlib') : await zstdDecoder();
  return unblosc(bytes, size, inner);
}

function none(): never {
  throw new Damaged('a blosc buffer without a compressor');
}
