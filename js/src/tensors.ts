// The tensors of an open checkpoint: each is one object, wherever it is met [TREE-010].

import type { Damage, NDArray, RawArray, ReadOptions, Selection, Tensor, VerifyOptions } from './api.js';
import { elementsOf, infoOf } from './dtypes.js';
import { boxOf } from './grid.js';
import { labelOf, pathOf } from './names.js';
import { readBytes, type Reading } from './reading.js';
import type { Spec } from './specs.js';
import type { TensorPages } from './tensor_pages.js';
import type { TensorSet } from './tree.js';
import { verifyTensor } from './verification.js';

/** A tensor, whose elements are not read before they are asked for. */
export class LazyTensor implements Tensor {
  readonly index: number;
  readonly name: string;
  readonly #spec: Spec;
  readonly #reading: Reading;

  constructor(spec: Spec, reading: Reading) {
    [this.index, this.name] = [spec.index, spec.name];
    [this.#spec, this.#reading] = [spec, reading];
  }

  get label(): string {
    return this.#reading.label(this.#spec);
  }

  get dtype(): Tensor['dtype'] {
    return this.#spec.dtype;
  }

  get shape(): readonly number[] {
    return this.#spec.shape;
  }

  get sides(): readonly bigint[] {
    return this.#spec.sides.map(BigInt);
  }

  get size(): number {
    return this.#spec.shape.reduce((product, side) => product * side, 1);
  }

  get nbytes(): number {
    return this.#spec.storageShape.reduce((product, side) => product * side, infoOf(this.dtype).size);
  }

  get chunkCount(): number {
    return this.#spec.chunkCount;
  }

  get grid(): readonly number[] {
    return this.#spec.grid;
  }

  get codec(): Tensor['codec'] {
    return this.#spec.codec;
  }

  get form(): Tensor['form'] {
    return this.#spec.form;
  }

  get source(): LazyTensor | undefined {
    const source = this.#reading.patch?.sourceOf(this.#spec);
    return source && source.base.tensors.get(source.index);
  }

  get home(): string {
    return this.#reading.source.label;
  }

  get block(): number {
    return this.#reading.chunks.block;
  }

  async read(selection?: Selection, options: ReadOptions = {}): Promise<NDArray> {
    const { dtype, shape, data } = await this.readRaw(selection, options);
    const [item] = selection?.slice(shapeless(this.#spec)) ?? [];
    const last = typeof item === 'number' ? 1 : shape.at(-1) ?? 1; // elements in a row
    return { dtype, shape, data: elementsOf(data, dtype, Math.ceil(last / infoOf(dtype).packed) * infoOf(dtype).size, last) };
  }

  async readRaw(selection?: Selection, options: ReadOptions = {}): Promise<RawArray> {
    const box = boxOf(this.#spec, selection);
    return { dtype: this.dtype, shape: box.shape, data: await readBytes(this.#reading, this.#spec, box, options) };
  }

  verify(options: VerifyOptions = {}): Promise<Damage[]> {
    return verifyTensor(this.#reading, this.#spec, options);
  }

  /** What a console shows. */
  toString(): string {
    return `Tensor ${JSON.stringify(this.label)} ${this.dtype} [${this.sides.join(', ')}]`;
  }
}

/** Where the item of the last axis is in a selection. */
const shapeless = ({ shape }: Spec): number => Math.max(0, shape.length - 1);

/** All tensors, of a manifest that has them all, or of pages. */
export class Tensors implements TensorSet {
  readonly #made = new Map<number, LazyTensor>();
  readonly #specs: readonly Spec[] | TensorPages;

  /** `reading` is asked for when a tensor is made. */
  constructor(specs: readonly Spec[] | TensorPages, readonly reading: () => Reading) {
    this.#specs = specs;
  }

  get count(): number {
    return this.#specs.length;
  }

  get pages(): TensorPages | undefined {
    return isList(this.#specs) ? undefined : this.#specs;
  }

  /** Of a tensor that is ready. */
  spec(index: number): Spec {
    return isList(this.#specs) ? this.#specs[index]! : this.#specs.specOf(index);
  }

  get(index: number): LazyTensor {
    let tensor = this.#made.get(index);
    if (tensor === undefined) {
      tensor = new LazyTensor(this.spec(index), this.reading());
      this.#made.set(index, tensor);
    }
    return tensor;
  }

  async load(indices: Iterable<number>, signal?: AbortSignal): Promise<void> {
    const { pages } = this;
    if (pages === undefined) return;
    const wanted = new Set<number>();
    for (const index of indices) wanted.add(pages.pageOf(index));
    if (wanted.size > 1 && wanted.size === pages.tableCount) await pages.loadAll(signal);
    else for (const page of wanted) await pages.page(page, signal);
  }

  /** The index of the tensor with a name; undefined if none has it. */
  async indexOf(name: string, signal?: AbortSignal): Promise<number | undefined> {
    const { pages } = this;
    if (pages === undefined) {
      const index = this.#names().get(name);
      return index;
    }
    const page = pages.pageOfName(name);
    if (page === undefined) return undefined;
    const row = (await pages.page(page, signal)).names.indexOf(name);
    return row < 0 ? undefined : pages.starts[page]! + row;
  }

  #byName: Map<string, number> | undefined;

  #names(): Map<string, number> {
    this.#byName ??= new Map((this.#specs as readonly Spec[]).map(({ name, index }) => [name, index]));
    return this.#byName;
  }
}

const isList = (specs: readonly Spec[] | TensorPages): specs is readonly Spec[] => Array.isArray(specs);

/** The label of a tensor in a paged checkpoint: its name tells it. [BLK-009] */
export const labelOfName = ({ name }: Spec): string => labelOf(pathOf(name));
