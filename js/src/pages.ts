// The pages of a manifest (section 7.1), each of them read when something in it is asked for.

import type { Source } from './api.js';
import { column, isEqual } from './bytes.js';
import { digestOf } from './digests.js';
import { need } from './errors.js';
import { checkManifest, type Limits } from './limits.js';
import { decode, type Item, type ItemMap } from './msgpack.js';
import type { Record } from './record.js';

const END = 2 ** 63;
const OBJECT = 'pages.bin'; // in directories
const AT_ONCE = 4 * 2 ** 20; // bytes of pages that are read with one request

/** Where pages are, and what they hold. */
export class Pages {
  readonly object: string;
  readonly offset: number;
  readonly count: number;
  readonly lengths: Float64Array;
  readonly starts: Float64Array;
  readonly #sha256: Uint8Array;

  constructor(readonly source: Source, pages: ItemMap, record: Record, readonly limits: Limits) {
    this.object = record.layout === 'file' ? '' : OBJECT;
    this.offset = Number(pages.get('offset'));
    const lengths = pages.get('length') as Uint8Array;
    this.#sha256 = pages.get('sha256') as Uint8Array;
    need(lengths.length % 8 === 0 && this.#sha256.length === 4 * lengths.length, 'PAGE-002', 'the columns of `pages` differ in length');
    this.lengths = column(lengths, 8);
    this.count = this.lengths.length;
    need(this.lengths.every((length) => length > 0), 'PAGE-002', 'a page is empty', 'bad-extent');
    this.starts = new Float64Array(this.count + 1);
    this.starts[0] = this.offset;
    this.lengths.forEach((length, i) => { this.starts[i + 1] = this.starts[i]! + length; });
    const end = this.starts[this.count]!;
    const inside = this.object === '' ? end <= record.offset : this.offset === 0;
    need(inside && end < END, 'PAGE-002', 'a page lies beyond the first byte of the manifest, or the first not at 0', 'bad-extent');
  }

  get end(): number {
    return this.starts[this.count]!;
  }

  /** The bytes of a page [PAGE-003]. */
  async bytes(number: number, signal?: AbortSignal): Promise<Uint8Array> {
    const [bytes] = await this.run(number, number + 1, signal);
    return bytes!;
  }

  async item(number: number, signal?: AbortSignal): Promise<Item> {
    return decode(await this.bytes(number, signal));
  }

  /** The bytes of pages that lie one after another, with as few requests as is sensible. */
  async run(first: number, last: number, signal?: AbortSignal): Promise<Uint8Array[]> {
    const out: Uint8Array[] = [];
    for (let number = first; number < last;) {
      let next = number;
      do {
        checkManifest(this.lengths[next]!, this.limits.manifest, `page ${next}`, 'LIM-011');
        next++;
      } while (next < last && this.starts[next + 1]! - this.starts[number]! <= AT_ONCE);
      const start = this.starts[number]!;
      const bytes = await this.source.read(this.object, start, this.starts[next]! - start, signal);
      for (; number < next; number++) {
        const page = bytes.subarray(this.starts[number]! - start, this.starts[number + 1]! - start);
        const right = isEqual((await digestOf('sha256'))(page), this.#sha256.subarray(32 * number, 32 * number + 32));
        need(right, 'PAGE-003', `page ${number} has another sha256`, 'manifest-digest');
        out.push(page);
      }
    }
    return out;
  }
}
