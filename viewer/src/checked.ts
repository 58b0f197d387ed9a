// What is known of the blocks of tensors: those whose digests were right when they were looked at, and those that were not.

import { bitsOf } from './cost.js';
import { isLacking, madeOf, type Fault, type ShownTensor } from './shown.js';

export interface Known {
  whole: ReadonlySet<string>;
  damaged: ReadonlySet<string>;
}

const NOTHING: Known = { whole: new Set(), damaged: new Set() };

/** Of one open checkpoint. */
export class Checked {
  readonly faults: Fault[] = [];
  #whole = new Map<string, Set<string>>();
  #damaged = new Map<string, Set<string>>();
  #all = new Set<string>(); // tensors of which every block was right
  #ofBase = new Set<string>(); // tensors of the base of a patch that are damaged
  isVerified = false;

  constructor(readonly changed: () => void) {}

  of(tensor: ShownTensor): Known {
    return { whole: this.#whole.get(tensor.label) ?? NOTHING.whole, damaged: this.#damaged.get(tensor.label) ?? NOTHING.damaged };
  }

  markOf(tensor: ShownTensor): 'damaged' | 'whole' | null {
    if (this.#damaged.has(tensor.label) || this.isOfDamaged(tensor)) return 'damaged';
    if (isLacking(tensor)) return null; // nobody has looked at the base
    return this.isVerified || this.#all.has(tensor.label) ? 'whole' : null;
  }

  /** Whether what a tensor of a patch is made of is damaged. */
  isOfDamaged(tensor: ShownTensor): boolean {
    return [...madeOf(tensor)].some(({ home, label }, i) => i > 0 && this.#ofBase.has(keyOf(home!, label)));
  }

  right(tensor: ShownTensor, blocks: Iterable<string>): void {
    const there = this.#whole.get(tensor.label) ?? new Set();
    for (const block of blocks) there.add(block);
    this.#whole.set(tensor.label, there);
    this.changed();
  }

  /** Every block of a tensor was looked at. */
  wholly(tensor: ShownTensor): void {
    this.#all.add(tensor.label);
    this.changed();
  }

  /** The whole was looked at, and this is all that is damaged. */
  verified(faults: readonly Fault[]): void {
    this.isVerified = true;
    this.wrong(faults);
  }

  wrong(faults: readonly Fault[]): void {
    for (const fault of faults) {
      const { tensor, chunk, block, offset, object, base } = fault.place;
      const same = (one: Fault): boolean => one.code === fault.code && one.place.tensor === tensor && one.place.chunk === chunk
        && one.place.block === block && one.place.offset === offset && one.place.object === object && one.place.base === base;
      if (this.faults.some(same)) continue;
      this.faults.push(fault);
      if (tensor === undefined) continue;
      if (base !== undefined) {
        this.#ofBase.add(keyOf(base, tensor));
        continue;
      }
      const there = this.#damaged.get(tensor) ?? new Set();
      there.add(`${chunk ?? 0}:${block ?? 0}`);
      this.#damaged.set(tensor, there);
      this.#all.delete(tensor);
    }
    this.changed();
  }
}

const keyOf = (home: string, label: string): string => JSON.stringify([home, label]);

/** Blocks of a tensor by chunk; of a compressed one each chunk counts as one, as its stored length is not known here. */
export function blocksOf(tensor: ShownTensor, block: number): { chunks: number; each: number } {
  const bits = bitsOf(tensor.dtype);
  const bytes = tensor.grid.reduce((product, side) => product * side, bits < 8 ? 1 : bits / 8);
  return { chunks: tensor.chunkCount, each: tensor.codec === undefined ? Math.max(1, Math.ceil(bytes / block)) : 1 };
}
