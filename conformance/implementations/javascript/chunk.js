// The stored bytes of one chunk: its blocks (section 6), and what they decode to.

import { createHash } from 'node:crypto';
import { decompress } from './codecs.js';
import { Fault, Unsupported } from './faults.js';
import { xxh3 } from './xxh3.js';

export const DIGESTS = { 'xxh3-128': xxh3, sha256: (bytes) => createHash('sha256').update(bytes).digest() };

/** The chunk at a position of a tensor's grid. A block is read and checked when a byte of it is wanted [BLK-004]. */
export class Chunk {
  #last = { number: -1 }; // the block read last: rows are read in order, so no other is wanted again

  #decoded;

  constructor(storage, parts, tensor, at, verify) {
    Object.assign(this, { storage, parts, tensor, verify });
    this.number = tensor.chunkCounts.reduce((number, count, axis) => number * count + at[axis], 0); // in C order
    this.extent = parts.find(tensor.index, this.number);
    const key = ['tensors', ...(tensor.name ? [tensor.name] : []), 'c', ...at].join('/'); // [LAY-003] [ZARR-003]
    this.object = this.extent.object ?? key;
    this.blocks = Math.ceil(this.extent.length / parts.block);
  }

  /** Copy bytes of the decoded chunk to a place in `target`. */
  copy(begin, end, target, at) {
    if (this.tensor.codec === undefined) this.#copyStored(begin, end, target, at);
    else (this.#decoded ??= this.#decode()).copy(target, at, begin, end);
  }

  /** A block whose digest is right [BLK-001]. */
  block(number) {
    if (this.#last.number !== number) {
      const { digest, digestSize, block } = this.parts;
      if (!Object.hasOwn(DIGESTS, digest)) throw new Unsupported(`digest:${digest}`);
      const begin = number * block;
      const bytes = this.#fetch(begin, Math.min(begin + block, this.extent.length));
      const wanted = this.extent.digests.subarray(number * digestSize, (number + 1) * digestSize);
      if (!DIGESTS[digest](bytes).equals(wanted)) {
        const offset = this.extent.offset + begin;
        throw this.fault('block-digest', `block ${number} at ${offset} of ${this.object}`, { block: number, offset });
      }
      this.#last = { number, bytes };
    }
    return this.#last.bytes;
  }

  fault(code, message, where) {
    const { tensor, number, object } = this;
    return new Fault(code, `tensor ${tensor.name}, chunk ${number}: ${message}`,
      { tensor: tensor.name, chunk: number, object, ...where });
  }

  #decode() {
    const stored = Buffer.allocUnsafe(this.extent.length);
    this.#copyStored(0, stored.length, stored, 0);
    try {
      return decompress(this.tensor.codec, stored, this.tensor.chunkSize);
    } catch (error) {
      if (error instanceof Unsupported) throw error;
      throw this.fault('bad-chunk', `${error.message} [ZARR-016]`);
    }
  }

  #copyStored(begin, end, target, at) {
    if (!this.verify) return this.#fetch(begin, end).copy(target, at);
    const size = this.parts.block;
    for (let number = Math.floor(begin / size); number * size < end; number++) {
      const start = Math.max(begin, number * size);
      this.block(number).copy(target, at + start - begin, start - number * size, end - number * size);
    }
    return undefined;
  }

  #fetch(begin, end) {
    let bytes;
    try {
      bytes = this.storage.read(this.object, this.extent.offset + begin, end - begin);
    } catch (error) {
      throw error instanceof Fault ? this.fault(error.code, error.message) : error;
    }
    if (bytes.length !== end - begin) {
      throw this.fault('short-object', `${this.object} ends before the chunk does [READ-005]`);
    }
    return bytes;
  }
}
