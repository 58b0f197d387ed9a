// From the stored bytes of a compressed chunk to its elements (section 5). Node's zlib is lenient about what surrounds a
// stream, so the framing is checked here [ZARR-016].

import zlib from 'node:zlib';
import { Unsupported } from './faults.js';

/** Codecs that this program can decode; zstd came to Node with version 22.15. */
export const KNOWN = zlib.zstdDecompressSync ? ['gzip', 'zstd'] : ['gzip'];

/** The `size` bytes that a chunk decodes to; throws Unsupported, and any other Error for damage. */
export function decompress(codec, bytes, size) {
  if (!KNOWN.includes(codec)) throw new Unsupported(`codec:${codec}`);
  const data = codec === 'gzip' ? gunzip(bytes, size) : unzstd(bytes, size); // neither gives more than `size` [ZARR-011]
  demand(data.length === size, `${data.length} bytes instead of ${size}`);
  return data;
}

function demand(holds, what) {
  if (!holds) throw new Error(what);
}

/** One gzip member (RFC 1952), and nothing after it. */
function gunzip(bytes, size) {
  demand(bytes.length >= 18 && bytes.readUIntBE(0, 3) === 0x1f8b08, 'no gzip member');
  const flags = bytes[3];
  demand(flags < 32, 'reserved flags of a gzip member');
  let at = 10;
  if (flags & 4) at += 2 + (at + 2 <= bytes.length ? bytes.readUInt16LE(at) : 0); // extra field
  for (const flag of [8, 16]) { // name and comment, each ended by a zero
    if (flags & flag) at = bytes.indexOf(0, at) + 1 || bytes.length;
  }
  if (flags & 2) { // crc of the header
    const wanted = zlib.crc32(bytes.subarray(0, at)) & 0xffff;
    demand(at + 2 <= bytes.length && bytes.readUInt16LE(at) === wanted, 'the crc of the gzip header');
    at += 2;
  }
  demand(at < bytes.length, 'the gzip member ends early');
  const { buffer, engine } = zlib.inflateRawSync(bytes.subarray(at), { maxOutputLength: size, info: true });
  at += engine.bytesWritten; // what the decoder took
  demand(at + 8 === bytes.length, 'the gzip member is not the whole chunk');
  demand(bytes.readUInt32LE(at) === zlib.crc32(buffer), 'the crc32 of the gzip member');
  demand(bytes.readUInt32LE(at + 4) === buffer.length % 2 ** 32, 'the length in the gzip member');
  return buffer;
}

/** One Zstandard frame (RFC 8878) that declares its content size, and nothing after it. */
function unzstd(bytes, size) {
  demand(bytes.length >= 9 && bytes.readUInt32LE(0) === 0xfd2fb528, 'no zstd frame');
  const single = (bytes[4] >> 5) & 1;
  const width = [single, 2, 4, 8][bytes[4] >> 6]; // of the content size
  let at = 5 + (1 - single) + [0, 1, 2, 4][bytes[4] & 3] + width;
  demand(width > 0 && at <= bytes.length, 'the zstd frame does not declare its content size');
  const declared = width === 8 ? Number(bytes.readBigUInt64LE(at - 8)) : bytes.readUIntLE(at - width, width);
  demand(declared + (width === 2 ? 256 : 0) === size, 'the zstd frame declares another content size');
  for (let last = 0; !last;) {
    demand(at + 3 <= bytes.length, 'the zstd frame ends early');
    const head = bytes.readUIntLE(at, 3);
    last = head & 1;
    at += 3 + (((head >> 1) & 3) === 1 ? 1 : head >> 3); // a block of one repeated byte holds just that
  }
  demand(at + (bytes[4] & 4) === bytes.length, 'the zstd frame is not the whole chunk');
  const params = { [zlib.constants.ZSTD_d_windowLogMax]: 31 };
  return zlib.zstdDecompressSync(bytes, { maxOutputLength: size, params });
}
