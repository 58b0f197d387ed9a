// What is shown of one tensor: what it is, a slice as a heat map, figures and numbers, and which of its blocks were checked.

import { AxesControl } from './axes.js';
import { histogram } from './charts.js';
import { type Checked, blocksOf } from './checked.js';
import { type Scale, scaleOf } from './colours.js';
import { broken, el, facts, fill, svg } from './dom.js';
import { HeatMap } from './heat_map.js';
import { type Look, bandAt, hasElements, look, partText, positionIn } from './look.js';
import { type Figures, type Statistics, endsOf, figures } from './numbers.js';
import { NumbersTable } from './numbers_table.js';
import { isLacking, type Fault, type Shown, type ShownTensor } from './shown.js';
import { brief, bytes, count, elementText, grouped, shapeText, visible } from './text.js';
import { type View, indexAt, initialView, viewText } from './view.js';

export interface Seen {
  shown: Shown;
  tensor: ShownTensor;
  look: Look;
  figures: Figures;
}

interface Callbacks {
  failed: (error: unknown) => void;
  damaged: (faults: readonly Fault[]) => void;
  pinned: (seen: Seen) => void;
  looked: (seen: Seen) => void;
}

const PARTS = 96; // of the strip of blocks
const FORMS = { whole: '', same: 'same as in the base', xor: 'differs from the base' };
const isDark = (): boolean => matchMedia('(prefers-color-scheme: dark)').matches;

export class TensorPanel {
  readonly element: HTMLElement;
  readonly #title = el('h2', { class: 'path' });
  readonly #about = el('div', { class: 'chips' });
  readonly #axes: AxesControl;
  readonly #status = el('div', { class: 'status' });
  readonly #told = el('div', { class: 'told', role: 'status' });
  readonly #heat: HeatMap;
  readonly #readout = el('p', { class: 'readout', role: 'status' });
  readonly #figures = el('div', { class: 'figures' });
  readonly #histogram = el('div', {});
  readonly #table: NumbersTable;
  readonly #range = el('select', { id: 'range', onchange: () => this.#drawHeat() },
    el('option', { value: 'all' }, 'all of it'), el('option', { value: 'middle' }, 'the middle 98 %'));
  readonly #pin = el('button', { type: 'button', onclick: () => this.#seen && this.callbacks.pinned(this.#seen) }, 'Pin to compare');
  readonly #verify = el('button', { type: 'button', onclick: () => void this.#verifyIt() }, 'Verify this tensor');
  readonly #sight: HTMLElement;
  #seen: Seen | null = null;
  #stop = new AbortController();

  constructor(readonly shown: Shown, readonly checked: Checked, readonly callbacks: Callbacks) {
    this.#axes = new AxesControl((view) => this.#tensor && void this.show(this.#tensor, view));
    this.#heat = new HeatMap({
      label: 'Heat map of the slice', moved: (row, column) => this.#tell(row, column),
      chosen: (row, column) => {
        this.#table.goTo(row, column);
        this.#table.element.scrollIntoView({ block: 'nearest' });
      },
    });
    this.#table = new NumbersTable((error) => this.callbacks.failed(error));
    this.#sight = el('div', { class: 'sight' },
      el('section', { class: 'card heat', 'aria-labelledby': 'heat-title' },
        el('div', { class: 'toolbar' }, el('h3', { id: 'heat-title' }, 'Heat map'), el('label', { for: 'range' }, 'Colours span '), this.#range),
        this.#heat.element, this.#readout),
      el('section', { class: 'card', 'aria-labelledby': 'figures-title' }, el('h3', { id: 'figures-title' }, 'Figures of what is shown'), this.#figures, this.#histogram),
      el('section', { class: 'card wide', 'aria-labelledby': 'numbers-title' }, el('h3', { id: 'numbers-title' }, 'Numbers'), this.#table.element));
    this.element = el('div', { class: 'panel' },
      el('div', { class: 'head' }, this.#title, el('div', { class: 'buttons' }, this.#pin, shown.verify ? this.#verify : null)),
      this.#about, this.#status,
      el('div', { class: 'card' }, this.#axes.element), this.#told, this.#sight);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#drawHeat());
  }

  #tensor: ShownTensor | null = null;

  get view(): View | null {
    return this.#seen?.look.view ?? null;
  }

  async show(tensor: ShownTensor, view: View = initialView(tensor.shape)): Promise<void> {
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    this.#tensor = tensor;
    this.#describe(tensor);
    this.#axes.show(tensor.shape, view);
    this.#pin.disabled = true;
    this.#sight.hidden = true;
    this.#verify.disabled = isLacking(tensor);
    const problem = tensor.opaque ?? (isLacking(tensor) ? 'This tensor is made of one of the base of this patch, which is not open.'
      : tensor.shape.includes(0) || !hasElements(view) ? 'There are no elements here.' : null);
    if (problem) {
      fill(this.#told, el('p', { class: 'note' }, problem));
      return;
    }
    fill(this.#told, el('p', { class: 'quiet' }, 'Reading …'));
    try {
      const found = await look(tensor, view, this.shown.block, {
        signal, onBlocks: (blocks) => this.shown.digest && this.checked.right(tensor, blocks),
      });
      const drawn = await figures(found, undefined, signal);
      signal.throwIfAborted();
      this.#seen = { shown: this.shown, tensor, look: found, figures: drawn };
      if (found.faults.length) this.callbacks.damaged(found.faults);
      this.#draw();
      this.callbacks.looked(this.#seen);
    } catch (error) {
      if (signal.aborted) return;
      fill(this.#told, el('p', { class: 'problem' }, visible((error as Error).message)));
      this.callbacks.failed(error);
    }
  }

  #describe(tensor: ShownTensor): void {
    fill(this.#title, ...broken(visible(tensor.label) || '(the whole tree)'));
    const chip = (text: string): HTMLElement => el('span', { class: 'chip' }, text);
    fill(this.#about, chip(tensor.dtype), chip(shapeText(tensor.shape)), chip(count(tensor.shape.reduce((a, b) => a * b, 1), 'element')), chip(bytes(tensor.nbytes)),
      FORMS[tensor.form ?? 'whole'] && chip(FORMS[tensor.form ?? 'whole']), tensor.form !== 'same' && chip(tensor.codec ?? 'raw'), tensor.chunkCount > 1 ? chip(count(tensor.chunkCount, 'chunk')) : null);
    this.showStatus();
  }

  /** What is known of the blocks. */
  showStatus(): void {
    const tensor = this.#tensor;
    if (!tensor) return;
    if (!this.shown.digest) {
      fill(this.#status, el('p', { class: 'quiet' }, `Not verified: ${this.shown.format} has no digests.`));
      return;
    }
    if (tensor.form && tensor.form !== 'whole') {
      fill(this.#status, this.#statusOfPatch(tensor));
      return;
    }
    const { whole, damaged } = this.checked.of(tensor);
    const { chunks, each } = blocksOf(tensor, this.shown.block);
    const total = chunks * each;
    const mark = this.checked.markOf(tensor);
    const right = mark === 'whole' ? total : whole.size;
    const noun = tensor.codec ? 'chunk' : 'block';
    const words = damaged.size ? `${count(damaged.size, noun)} of ${grouped(total)} damaged; ${grouped(right)} checked and right`
      : right === 0 ? `${count(total, noun)}, each checked as it is read`
        : right === total ? `${total === 1 ? `Its ${noun} is` : `All ${count(total, noun)} are`} checked: every byte is as its ${this.shown.digest} digest says` : `${grouped(right)} of ${count(total, noun)} checked, none damaged so far`;
    fill(this.#status, strip(total, each, mark === 'whole' ? null : whole, damaged, words), el('p', { class: damaged.size ? 'problem' : 'quiet', role: 'status' }, words));
  }

  /** Of a tensor that is made of one of a base: what it is made of, and whether blocks of either are damaged. */
  #statusOfPatch(tensor: ShownTensor): HTMLElement {
    const mark = this.checked.markOf(tensor);
    const of = tensor.source ? `${visible(tensor.source.label) || 'the whole tree'} of ${visible(tensor.source.home ?? 'the base')}` : 'a tensor of the base';
    const made = tensor.form === 'same' ? `The same as ${of}` : `As ${of}, but for bits that differ`;
    const checked = isLacking(tensor) ? '' : mark === 'damaged' ? this.checked.isOfDamaged(tensor) ? ': that is damaged' : ': those are damaged'
      : mark === 'whole' ? ': every byte is as its digest says' : ': each block is checked as it is read';
    return el('p', { class: mark === 'damaged' ? 'problem' : 'quiet', role: 'status' }, `${made}${checked}.`);
  }

  #draw(): void {
    const { look: found, figures: { statistics } } = this.#seen!;
    const part = partText(found);
    const damaged = found.bands.filter(({ elements }) => elements === null);
    const rows = damaged.map(({ first, count: number }) => (number === 1 ? grouped(first) : `${grouped(first)} to ${grouped(first + number - 1)}`));
    fill(this.#told, part && el('p', { class: 'note' }, `${part} ${bytes(found.bytes)} were read; that is the most for one look.`),
      damaged.length > 0 && el('p', { class: 'problem' }, `Damaged, and not shown: ${found.rows === 1 ? 'this slice' : `rows ${rows.slice(0, 5).join(', ')}${rows.length > 5 ? ' …' : ''}`}.`));
    this.#sight.hidden = false;
    this.#pin.disabled = false;
    this.showStatus();
    fill(this.#figures, facts(figureRows(statistics)));
    fill(this.#histogram, histogram(statistics));
    this.#drawHeat();
    this.#table.show(this.#seen!.tensor, found);
    fill(this.#readout, this.#cellWords());
  }

  #cellWords(): string {
    const { cells } = this.#seen!.figures;
    if (cells.down === 1 && cells.across === 1) return 'One cell is one element.';
    return `One cell is the mean of ${grouped(cells.down)} × ${grouped(cells.across)} elements.`;
  }

  #drawHeat(): void {
    if (!this.#seen || this.#sight.hidden) return;
    const { cells } = this.#seen.figures;
    const ends = this.#range.value === 'middle' ? middle(cells.mean) : endsOf(cells);
    const scale: Scale = scaleOf(ends[0], ends[1], isDark());
    this.#heat.draw(cells, scale);
  }

  #tell(row: number, column: number): void {
    if (!this.#seen) return;
    const { look: found, figures: { cells }, tensor } = this.#seen;
    const band = bandAt(found, row);
    const index = indexAt(found.view, row, column).map(grouped).join(', ');
    if (!band || column >= found.across.count) {
      fill(this.#readout, `[${index}] was not read`);
      return;
    }
    if (band.elements === null) {
      fill(this.#readout, `[${index}] is damaged`);
      return;
    }
    const text = elementText(band.elements, positionIn(found, band, row, column));
    const isMean = cells.down * cells.across > 1;
    const mean = cells.mean[Math.floor(row / cells.down) * cells.columns + Math.floor(column / cells.across)]!;
    fill(this.#readout, `${tensor.label.split('/').at(-1) ?? ''}[${index}] = ${text}${isMean ? `; mean of the cell ${brief(mean)}` : ''}`);
  }

  async #verifyIt(): Promise<void> {
    const tensor = this.#tensor;
    if (!tensor?.verify) return;
    this.#verify.disabled = true;
    this.#verify.setAttribute('aria-busy', 'true');
    try {
      const faults = await tensor.verify({ onProgress: ({ done, total }) => fill(this.#verify, `Verifying … ${Math.floor((100 * done) / Math.max(1, total))} %`) });
      if (faults.length) this.callbacks.damaged(faults);
      else this.checked.wholly(tensor);
    } catch (error) {
      this.callbacks.failed(error);
    } finally {
      fill(this.#verify, 'Verify this tensor');
      this.#verify.disabled = this.#tensor !== null && isLacking(this.#tensor);
      this.#verify.removeAttribute('aria-busy');
      this.showStatus();
    }
  }

  close(): void {
    this.#stop.abort();
  }
}

/** The values between which 98 of 100 cells are. */
function middle(mean: Float32Array): readonly [number, number] {
  const known = mean.filter((value) => value === value).sort();
  if (known.length === 0) return [NaN, NaN];
  return [known[Math.floor(known.length * 0.01)]!, known[Math.min(known.length - 1, Math.ceil(known.length * 0.99))]!];
}

export function figureRows({ count: number, exact, least, greatest, mean, deviation, zeros, nan, infinite }: Statistics): [string, string][] {
  const ends = exact ? exact.map(String) : [brief(least), brief(greatest)];
  const isEmpty = number === nan + infinite;
  return [
    ['elements', grouped(number)], ['least', isEmpty ? '–' : ends[0]!], ['greatest', isEmpty ? '–' : ends[1]!], ['mean', isEmpty ? '–' : brief(mean)],
    ['deviation', isEmpty ? '–' : brief(deviation)], ['zeros', grouped(zeros)], ['NaN', grouped(nan)], ['infinite', grouped(infinite)],
  ];
}

/** A strip with a part for each block, or for several. */
function strip(total: number, each: number, whole: ReadonlySet<string> | null, damaged: ReadonlySet<string>, words: string): Node {
  const parts = Math.min(PARTS, total);
  const state = new Array<string>(parts).fill(whole === null ? 'right' : 'unknown');
  const partOf = (key: string): number => {
    const [chunk, block] = key.split(':').map(Number) as [number, number];
    return Math.min(parts - 1, Math.floor(((chunk * each + Math.min(block, each - 1)) / total) * parts));
  };
  for (const key of whole ?? []) state[partOf(key)] = 'right';
  for (const key of damaged) state[partOf(key)] = 'wrong';
  const gap = Math.min(0.12, (0.25 * parts) / PARTS);
  return svg('svg', { class: 'strip', viewBox: `0 0 ${parts} 1`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `Blocks: ${words}` },
    ...state.map((kind, i) => svg('rect', { x: i + gap / 2, y: 0, width: 1 - gap, height: 1, class: kind })));
}

/** What a view of a tensor is called. */
export const seenText = ({ tensor, look: { view } }: Seen): string => `${tensor.label}${tensor.shape.length ? `[${viewText(view, tensor.shape)}]` : ''}`;
