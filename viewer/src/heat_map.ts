// A heat map on a canvas, with its legend, and a cursor that the pointer or the arrow keys move.

import { type Scale, shade, table } from './colours.js';
import { el, fill } from './dom.js';
import type { Cells } from './numbers.js';
import { brief } from './text.js';

const [SEEN, ODD, DAMAGED] = [1, 2, 3];
const NO_NUMBER: [number, number, number] = [232, 62, 200];

export interface HeatMapOptions {
  label: string;
  /** Told of the cell that the cursor is on; row and column of the view. */
  moved: (row: number, column: number) => void;
  /** A click, or Enter. */
  chosen: (row: number, column: number) => void;
}

export class HeatMap {
  readonly element: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #frame: HTMLElement;
  readonly #legend: HTMLElement;
  readonly #cursor: HTMLElement;
  #cells: Cells | null = null;
  #at = { row: 0, column: 0 };

  constructor(readonly options: HeatMapOptions) {
    this.#canvas = el('canvas', { 'aria-hidden': 'true' });
    this.#cursor = el('div', { class: 'cursor', hidden: true });
    this.#frame = el('div', {
      class: 'frame', tabindex: 0, role: 'application', 'aria-roledescription': 'heat map', 'aria-label': `${options.label}. Arrow keys move, Enter shows the numbers there.`,
      onpointermove: (event: PointerEvent) => this.#point(event), onclick: (event: PointerEvent) => this.#click(event),
      onkeydown: (event: KeyboardEvent) => this.#key(event), onpointerleave: () => (this.#cursor.hidden = document.activeElement !== this.#frame),
      onfocus: () => this.#move(this.#at.row, this.#at.column), onblur: () => (this.#cursor.hidden = true),
    }, this.#canvas, this.#cursor);
    this.#legend = el('div', { class: 'legend' });
    this.element = el('div', { class: 'heat-map' }, this.#frame, this.#legend);
  }

  draw(cells: Cells, scale: Scale): void {
    this.#cells = cells;
    this.#at = { row: Math.min(this.#at.row, cells.rows - 1), column: Math.min(this.#at.column, cells.columns - 1) };
    const { rows, columns } = cells;
    this.#canvas.width = Math.max(1, columns);
    this.#canvas.height = Math.max(1, rows);
    // small ones are enlarged by whole cells, and a single row gets some height
    this.#frame.style.setProperty('--columns', String(columns));
    this.#frame.style.setProperty('--rows', String(rows));
    this.#frame.style.aspectRatio = `${Math.max(columns, rows / 4)} / ${Math.max(rows, columns / 24)}`;
    this.#frame.style.maxWidth = `${Math.min(1100, Math.max(columns * 24, 240), Math.ceil((520 * columns) / Math.max(rows, columns / 24)))}px`;
    const image = new ImageData(this.#canvas.width, this.#canvas.height);
    const colours = table(scale.map);
    const isDark = scale.map === 'berlin' || matchMedia('(prefers-color-scheme: dark)').matches;
    for (let i = 0; i < rows * columns; i++) image.data.set(colourOf(cells, i, colours, scale, isDark), 4 * i);
    this.#canvas.getContext('2d')?.putImageData(image, 0, 0);
    this.#showLegend(cells, scale, colours);
  }

  #showLegend({ kind }: Cells, scale: Scale, colours: Uint8Array): void {
    const stops = Array.from({ length: 17 }, (_, i) => {
      const at = 3 * Math.round((i / 16) * 255);
      return `rgb(${colours[at]} ${colours[at + 1]} ${colours[at + 2]})`;
    });
    const middle = scale.low < 0 && scale.high > 0 ? '0' : brief(scale.low / 2 + scale.high / 2);
    fill(this.#legend,
      el('div', { class: 'ramp', style: `background: linear-gradient(to right, ${stops.join(', ')})` }),
      el('div', { class: 'ends' }, el('span', {}, brief(scale.low)), el('span', {}, middle), el('span', {}, brief(scale.high))),
      kind.includes(ODD) && el('span', { class: 'key' }, el('i', { class: 'swatch odd' }), 'NaN or infinite'),
      kind.includes(DAMAGED) && el('span', { class: 'key' }, el('i', { class: 'swatch damaged' }), 'damaged'),
      kind.includes(0) && el('span', { class: 'key' }, el('i', { class: 'swatch' }), 'not read'));
  }

  #cellAt(event: PointerEvent): [number, number] | null {
    if (!this.#cells) return null;
    const box = this.#canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.#cells.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.#cells.columns);
    return row >= 0 && column >= 0 && row < this.#cells.rows && column < this.#cells.columns ? [row, column] : null;
  }

  #point(event: PointerEvent): void {
    const found = this.#cellAt(event);
    if (found) this.#move(...found);
  }

  #click(event: PointerEvent): void {
    const found = this.#cellAt(event);
    if (found && this.#cells) this.options.chosen(found[0] * this.#cells.down, found[1] * this.#cells.across);
  }

  #move(row: number, column: number): void {
    if (!this.#cells) return;
    const { rows, columns, down, across } = this.#cells;
    this.#at = { row: Math.max(0, Math.min(rows - 1, row)), column: Math.max(0, Math.min(columns - 1, column)) };
    this.#cursor.hidden = false;
    this.#cursor.style.left = `${((this.#at.column + 0.5) / columns) * 100}%`;
    this.#cursor.style.top = `${((this.#at.row + 0.5) / rows) * 100}%`;
    this.options.moved(this.#at.row * down, this.#at.column * across);
  }

  #key(event: KeyboardEvent): void {
    const by = event.shiftKey ? 16 : 1;
    const { row, column } = this.#at;
    if (event.key === 'ArrowDown') this.#move(row + by, column);
    else if (event.key === 'ArrowUp') this.#move(row - by, column);
    else if (event.key === 'ArrowRight') this.#move(row, column + by);
    else if (event.key === 'ArrowLeft') this.#move(row, column - by);
    else if (event.key === 'Home') this.#move(row, 0);
    else if (event.key === 'End') this.#move(row, Infinity);
    else if (event.key === 'Enter' && this.#cells) this.options.chosen(row * this.#cells.down, column * this.#cells.across);
    else return;
    event.preventDefault();
  }
}

function colourOf(cells: Cells, i: number, colours: Uint8Array, scale: Scale, isDark: boolean): [number, number, number, number] {
  const kind = cells.kind[i];
  if (kind === SEEN) {
    const at = 3 * shade(scale, cells.mean[i]!);
    return [colours[at]!, colours[at + 1]!, colours[at + 2]!, 255];
  }
  if (kind === ODD) return [...NO_NUMBER, 255];
  const isStripe = (Math.floor(i / cells.columns) + (i % cells.columns)) % 6 < 3;
  if (kind === DAMAGED) return isStripe ? [206, 43, 55, 255] : isDark ? [60, 20, 24, 255] : [255, 222, 222, 255];
  return [0, 0, 0, 0];
}
