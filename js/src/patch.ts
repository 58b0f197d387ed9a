// Patches (section 7.4): checkpoints of which tensors are made of those of another one, the base.

import { column, toHex } from './bytes.js';
import { CkptError, need } from './errors.js';
import { bin, map, orNil, str } from './forms.js';
import type { Manifest } from './manifest.js';
import type { ItemMap } from './msgpack.js';
import type { Reading } from './reading.js';
import { Spec } from './specs.js';
import type { Tensors } from './tensors.js';

const FORMS = ['whole', 'same', 'xor'] as const;
const NO_SOURCE = 2 ** 32 - 1;
const SHA256 = 32; // bytes
const PATCH = map({ base: bin, result: orNil(bin), generator: str, form: bin, source: bin });

/** How a tensor is made: stored here, the same as one of the base, or with one of the base by exclusive or. */
export type TensorForm = (typeof FORMS)[number];

/** What the tensors of a base are read with. */
export interface Base {
  readonly reading: Reading;
  readonly tensors: Tensors;
}

/** What a patch says of its base; and the base, once there is one. */
export class Patch {
  /** sha256 of the manifest of the base, and of what the patch was made from, in hexadecimal. */
  readonly base: string;
  readonly result: string | null;
  readonly #sources: Float64Array;
  #taken: Base | undefined;

  private constructor(keys: ItemMap) {
    const result = keys.get('result') as Uint8Array | null;
    this.base = toHex(keys.get('base') as Uint8Array);
    this.result = result && toHex(result);
    this.#sources = column(keys.get('source') as Uint8Array, 4);
  }

  /** The key `patch`, and tensors with the forms that it says. [PATCH-001] [PATCH-002] [PATCH-003] */
  static of(manifest: Manifest, plain: readonly Spec[]): { patch: Patch; specs: Spec[] } {
    const keys = manifest.keys.get('patch');
    const good = PATCH(keys) && ['base', 'result'].every((key) => [SHA256, undefined].includes((keys.get(key) as Uint8Array | null)?.length));
    need(good, 'PATCH-001', '`patch` lacks a key, or has one of another type or size');
    const [forms, sources] = [keys.get('form') as Uint8Array, keys.get('source') as Uint8Array];
    const even = forms.length === plain.length && sources.length === 4 * plain.length;
    need(even, 'PATCH-002', 'the columns of `patch` have another number of rows than there are tensors');
    const patch = new Patch(keys);
    const fits = forms.every((form, index) => form < FORMS.length && (form === 0) === (patch.#sources[index] === NO_SOURCE));
    need(fits, 'PATCH-002', 'a tensor has no form, or a source that its form has not');
    const specs = plain.map(({ kind, index, name }) => new Spec(kind, index, name, FORMS[forms[index]!]));
    for (const { form, codec, grid, storageShape } of specs) {
      const whole = codec === undefined && grid.every((side, axis) => side === Math.max(1, storageShape[axis]!));
      need(form !== 'same' || whole, 'PATCH-003', 'a tensor that is the same has one raw chunk as its grid and codec');
    }
    return { patch, specs };
  }

  get isTaken(): boolean {
    return this.#taken !== undefined;
  }

  /** Read through a base, whose sha256 is right: refuse tensors that those of it cannot become. [PATCH-005] */
  async take(base: Base, specs: readonly Spec[], signal?: AbortSignal): Promise<void> {
    const made = specs.filter(({ form }) => form !== 'whole');
    const { tensors } = base;
    await tensors.load(made.map(({ index }) => this.#sources[index]!).filter((source) => source < tensors.count), signal);
    for (const { index, dtype, sides } of made) {
      const source = this.#sources[index]!;
      const there = source < tensors.count ? tensors.spec(source) : undefined;
      const fits = there !== undefined && there.dtype === dtype && String(there.sides) === String(sides);
      need(fits, 'PATCH-005', `tensor ${index} is made of tensor ${source} of the base, which is another, or is not there`);
    }
    this.#taken = base;
  }

  /** Of which tensor of the base one is made; undefined without a base. */
  sourceOf({ form, index }: Spec): { base: Base; index: number } | undefined {
    if (form === 'whole' || this.#taken === undefined) return undefined;
    return { base: this.#taken, index: this.#sources[index]! };
  }

  /** The error about a tensor that is made of the base, which was not given. [PATCH-004] */
  missing(tensor: string): CkptError {
    const what = `tensor ${JSON.stringify(tensor)} is made of the base of this patch, which was not given: open it with that as its `
      + `\`base\`, the checkpoint whose manifest has the sha256 ${this.base}; or write out what it makes, with \`ckptfmt apply\``;
    return new CkptError('missing-base', `${what} [PATCH-004]`, { tensor });
  }
}
