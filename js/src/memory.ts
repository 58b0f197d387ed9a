// Checkpoints that a program has at hand: bytes, a Blob or File, or the objects of a directory, as a dropped folder has them.

import type { Objects, Source } from './api.js';
import { CkptError } from './errors.js';

const READ_AHEAD = 4096;

async function part(data: Blob | Uint8Array, label: string, offset: number, length: number): Promise<Uint8Array> {
  if (data instanceof Uint8Array) return data.subarray(offset, offset + length);
  try {
    return new Uint8Array(await data.slice(offset, offset + length).arrayBuffer());
  } catch (error) {
    const why = 'it cannot be read, or was changed after it had been chosen';
    throw new CkptError('io', `${label}: ${why}`, {}, { cause: error });
  }
}

const sizeOf = (data: Blob | Uint8Array): number => (data instanceof Uint8Array ? data.length : data.size);

/** One file. */
export class BytesSource implements Source {
  readonly kind = 'file';
  readonly readAhead = READ_AHEAD;

  constructor(readonly data: Blob | Uint8Array, readonly label: string) {}

  async size(): Promise<number> {
    return sizeOf(this.data);
  }

  async read(_: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    signal?.throwIfAborted();
    return part(this.data, this.label, offset, length);
  }

  async tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    const size = sizeOf(this.data);
    return { bytes: await this.read(object, Math.max(0, size - length), length, signal), size };
  }

  async close(): Promise<void> {}
}

/** A directory, by the paths of its objects. */
export class ObjectsSource implements Source {
  readonly kind = 'directory';
  readonly label = 'this directory';
  readonly readAhead = READ_AHEAD;

  constructor(readonly objects: Objects) {}

  async size(object: string): Promise<number> {
    return sizeOf(this.#at(object));
  }

  async read(object: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    signal?.throwIfAborted();
    return part(this.#at(object), object, offset, length);
  }

  async tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    const size = await this.size(object);
    return { bytes: await this.read(object, Math.max(0, size - length), length, signal), size };
  }

  async close(): Promise<void> {}

  #at(object: string): Blob | Uint8Array {
    const data = this.objects.get(object);
    if (data === undefined) throw new CkptError('missing-object', `${object} is not there`, { object });
    return data;
  }
}
