// Buffers of Blosc 1: blocks that are compressed by themselves, with their bytes or bits shuffled.

import { view } from './bytes.js';
import { Damaged, demand } from './damaged.js';
import { allocate } from './limits.js';
import { unblosclz, unlz4, unsnappy } from './lz.js';

/** Gives the `size` bytes that a stream decodes to, or fewer, or throws where it is damaged. */
export type Inner = (stream: Uint8Array, size: number) => Uint8Array;

const HEADER = 16;
const INNER = ['blosclz', 'lz4', 'snappy', 'zlib', 'zstd'] as const; // by the number in the flags
const [SHUFFLED, COPIED, BITS_SHUFFLED, NOT_SPLIT] = [1, 2, 4, 16]; // flags
const MOST_SPLITS = 16; // streams of a block, one for each byte of an element
const LEAST_SPLIT = 128; // elements of a block that is split

/** What the header says. */
interface Header {
  readonly flags: number;
  readonly elementSize: number;
  readonly size: number;
  readonly blockSize: number;
}

/** The decoders that a buffer needs besides those that are here. */
export function innerOf(bytes: Uint8Array): 'zlib' | 'zstd' | undefined {
  const name = INNER[bytes[2]! >> 5];
  return name === 'zlib' || name === 'zstd' ? name : undefined;
}

/** The `size` bytes of a buffer, which is all that `bytes` have. */
export function unblosc(bytes: Uint8Array, size: number, other: Inner): Uint8Array {
  demand(bytes.length >= HEADER, 'no blosc buffer');
  const data = view(bytes);
  const header: Header = { flags: bytes[2]!, elementSize: bytes[3]!, size: data.getUint32(4, true), blockSize: data.getUint32(8, true) };
  const stored = data.getUint32(12, true);
  const fits = header.size === size && stored === bytes.length;
  demand(fits, `the blosc buffer declares ${header.size} bytes in ${stored}`);
  if (header.flags & COPIED) {
    demand(stored === HEADER + size, 'a copy of another length in the blosc buffer');
    return bytes.slice(HEADER);
  }
  demand(header.blockSize > 0 && header.elementSize > 0, 'blosc blocks of no bytes');
  const out = allocate(size);
  const blocks = Math.ceil(size / header.blockSize);
  demand(HEADER + 4 * blocks <= bytes.length, 'the blosc buffer ends early');
  for (let block = 0; block < blocks; block++) {
    const target = out.subarray(block * header.blockSize, Math.min((block + 1) * header.blockSize, size));
    decodeBlock(bytes, data.getUint32(HEADER + 4 * block, true), header, target, other);
  }
  return out;
}

function decodeBlock(bytes: Uint8Array, start: number, header: Header, target: Uint8Array, other: Inner): void {
  const { flags, elementSize, blockSize } = header;
  const isSplit = !(flags & NOT_SPLIT) && elementSize <= MOST_SPLITS && blockSize / elementSize >= LEAST_SPLIT && target.length === blockSize;
  const splits = isSplit ? elementSize : 1;
  const each = Math.floor(target.length / splits);
  const isShuffled = (flags & SHUFFLED) !== 0 && elementSize > 1;
  const isDirect = !isShuffled && !(flags & BITS_SHUFFLED);
  const plain = isDirect ? target : new Uint8Array(target.length);
  let at = start;
  for (let split = 0; split < splits; split++) {
    demand(at + 4 <= bytes.length, 'a blosc block ends early');
    const length = view(bytes).getUint32(at, true);
    demand(at + 4 + length <= bytes.length, 'a blosc block ends early');
    const stream = bytes.subarray(at + 4, at + 4 + length);
    const found = length === each ? stream : inner(flags >> 5, stream, each, other);
    demand(found.length === each, `a blosc block of ${found.length} bytes instead of ${each}`);
    plain.set(found, split * each);
    at += 4 + length;
  }
  if (isShuffled) unshuffle(plain, target, elementSize);
  else if (!isDirect) unshuffleBits(plain, target, elementSize);
}

function inner(number: number, stream: Uint8Array, size: number, other: Inner): Uint8Array {
  switch (INNER[number]) {
    case 'blosclz': return unblosclz(stream, size);
    case 'lz4': return unlz4(stream, size);
    case 'snappy': return unsnappy(stream, size);
    case undefined: throw new Damaged(`compressor ${number} of blosc, which there is not`);
    default: return other(stream, size);
  }
}

/** Bytes that stand by their place in the elements, back into elements; what is left at the end is as it was. */
function unshuffle(from: Uint8Array, to: Uint8Array, size: number): void {
  const count = Math.floor(from.length / size);
  for (let byte = 0; byte < size; byte++) {
    for (let i = 0, source = byte * count, target = byte; i < count; i++, target += size) to[target] = from[source++]!;
  }
  to.set(from.subarray(count * size), count * size);
}

/** The same of bits, in groups of eight elements; where there is another number of elements nothing was shuffled. */
function unshuffleBits(from: Uint8Array, to: Uint8Array, size: number): void {
  const count = Math.floor(from.length / size);
  if (count % 8 !== 0) {
    to.set(from);
    return;
  }
  const row = count / 8; // bytes of one bit of all elements
  for (let byte = 0; byte < size; byte++) {
    for (let group = 0; group < row; group++) {
      const rows = byte * 8 * row + group;
      let [low, high] = [0, 0]; // eight rows of eight bits, to be transposed
      for (let bit = 0; bit < 4; bit++) low |= from[rows + bit * row]! << (8 * bit);
      for (let bit = 0; bit < 4; bit++) high |= from[rows + (bit + 4) * row]! << (8 * bit);
      for (let element = 0; element < 8; element++) {
        const bits = ((low >>> element) & 0x01010101) | (((high >>> element) & 0x01010101) << 4);
        to[(group * 8 + element) * size + byte] = (bits | (bits >>> 7) | (bits >>> 14) | (bits >>> 21)) & 255;
      }
    }
  }
  to.set(from.subarray(count * size), count * size);
}
