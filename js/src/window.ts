// A source that is read from its beginning to its end in small steps: it is asked for large pieces.

import type { Source } from './api.js';

const WINDOW = 4 * 2 ** 20; // bytes
const SMALL = 2 ** 20; // a longer read is passed on

export class WindowSource implements Source {
  readonly kind: Source['kind'];
  #object: string | undefined;
  #start = 0;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(readonly source: Source) {
    this.kind = source.kind;
  }

  get label(): string {
    return this.source.label;
  }

  get readAhead(): number {
    return this.source.readAhead;
  }

  size(object: string, signal?: AbortSignal): Promise<number> {
    return this.source.size(object, signal);
  }

  async read(object: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    if (length > SMALL) return this.source.read(object, offset, length, signal);
    const inside = object === this.#object && offset >= this.#start && offset + length <= this.#start + this.#bytes.length;
    if (!inside) {
      const left = await this.source.size(object, signal) - offset; // no more is asked for than is there [READ-007]
      const bytes = await this.source.read(object, offset, Math.max(0, Math.min(WINDOW, left)), signal);
      [this.#object, this.#start, this.#bytes] = [object, offset, bytes];
    }
    const at = offset - this.#start;
    return this.#bytes.subarray(at, at + length);
  }

  tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    return this.source.tail(object, length, signal);
  }

  async close(): Promise<void> {
    this.#bytes = new Uint8Array(0); // the source is its owner's to close
  }
}
