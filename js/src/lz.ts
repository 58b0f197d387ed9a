// The three compressors of Blosc that there is no library for: each is literals, and copies of what came before.

import { demand } from './damaged.js';
import { allocate } from './limits.js';

/** Reads a stream, and writes `size` bytes. */
class Copier {
  readonly out: Uint8Array;
  from = 0;
  to = 0;

  constructor(readonly stream: Uint8Array, readonly name: string, size: number) {
    this.out = allocate(size);
  }

  get isDone(): boolean {
    return this.from >= this.stream.length;
  }

  byte(): number {
    this.need(this.from < this.stream.length);
    return this.stream[this.from++]!;
  }

  /** A number of some bytes, little-endian. */
  number(bytes: number): number {
    let value = 0;
    for (let i = 0; i < bytes; i++) value += this.byte() * 2 ** (8 * i);
    return value;
  }

  /** A length, to which bytes are added up to the first that is not 255. */
  more(length: number): number {
    let [total, next] = [length, 255];
    while (next === 255) total += next = this.byte();
    return total;
  }

  literals(count: number): void {
    this.need(this.from + count <= this.stream.length && this.to + count <= this.out.length);
    this.out.set(this.stream.subarray(this.from, this.from + count), this.to);
    this.from += count;
    this.to += count;
  }

  /** Bytes again that stand `distance` back; they may reach into what is being written. */
  again(distance: number, count: number): void {
    const { out, to } = this;
    this.need(distance > 0 && distance <= to && to + count <= out.length);
    if (distance >= count) out.copyWithin(to, to - distance, to - distance + count);
    else for (let i = to; i < to + count; i++) out[i] = out[i - distance]!;
    this.to += count;
  }

  need(holds: boolean): void {
    demand(holds, `a stream of ${this.name} that does not decode`);
  }

  whole(): Uint8Array {
    this.need(this.to === this.out.length);
    return this.out;
  }
}

/** One block of LZ4; LZ4HC gives the same. */
export function unlz4(stream: Uint8Array, size: number): Uint8Array {
  const copier = new Copier(stream, 'LZ4', size);
  for (;;) {
    const token = copier.byte();
    copier.literals(token >> 4 === 15 ? copier.more(15) : token >> 4);
    if (copier.isDone) return copier.whole();
    const distance = copier.number(2);
    copier.again(distance, 4 + ((token & 15) === 15 ? copier.more(15) : token & 15));
  }
}

export function unsnappy(stream: Uint8Array, size: number): Uint8Array {
  const copier = new Copier(stream, 'Snappy', size);
  let declared = 0;
  for (let shift = 0, next = 128; next & 128; shift += 7) {
    copier.need(shift <= 28);
    declared += ((next = copier.byte()) & 127) * 2 ** shift;
  }
  copier.need(declared === size);
  while (!copier.isDone) {
    const tag = copier.byte();
    const [kind, rest] = [tag & 3, tag >> 2];
    if (kind === 0) copier.literals(1 + (rest < 60 ? rest : copier.number(rest - 59)));
    else if (kind === 1) copier.again(((tag >> 5) << 8) + copier.byte(), 4 + (rest & 7));
    else copier.again(copier.number(kind === 2 ? 2 : 4), 1 + rest);
  }
  return copier.whole();
}

const FAR = 8191; // from where distances take two more bytes

export function unblosclz(stream: Uint8Array, size: number): Uint8Array {
  const copier = new Copier(stream, 'BloscLZ', size);
  for (let control = copier.byte() & 31; ; control = copier.byte()) {
    if (control < 32) copier.literals(control + 1);
    else {
      const length = control >> 5 === 7 ? copier.more(7) : control >> 5;
      const [high, low] = [control & 31, copier.byte()];
      const isFar = high === 31 && low === 255;
      copier.again(1 + (isFar ? FAR + copier.byte() * 256 + copier.byte() : high * 256 + low), length + 2);
    }
    if (copier.isDone) return copier.whole();
  }
}
