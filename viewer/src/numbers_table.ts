// The elements of a view as a table: a window of rows and columns that is moved over it.

import { el, fill } from './dom.js';
import { type Look, bandAt, isDamage, positionIn } from './look.js';
import type { Elements, ShownTensor } from './shown.js';
import { elementBrief, elementText, grouped } from './text.js';
import { type View, indexAt, isTransposed, lieOf, selectionOf } from './view.js';

const ROWS = 20;

interface Cell {
  elements: Elements;
  at: number;
}

export class NumbersTable {
  readonly element: HTMLElement;
  readonly #table: HTMLElement;
  readonly #place: HTMLElement;
  readonly #row: HTMLInputElement;
  readonly #column: HTMLInputElement;
  #look: Look | null = null;
  #tensor: ShownTensor | null = null;
  #top = 0;
  #left = 0;
  #marked: [number, number] | null = null;
  #turn = 0;

  constructor(readonly failed: (error: unknown) => void) {
    this.#table = el('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Table of numbers', onkeydown: (event: KeyboardEvent) => this.#key(event) });
    this.#place = el('span', { class: 'quiet', role: 'status' });
    this.#row = this.#input('row');
    this.#column = this.#input('column');
    const move = (text: string, name: string, down: number, across: number): HTMLElement =>
      el('button', { type: 'button', class: 'square', 'aria-label': name, title: name, onclick: () => this.#move(down, across) }, text);
    this.element = el('div', { class: 'numbers' },
      el('div', { class: 'toolbar' },
        move('↑', 'Rows above', -1, 0), move('↓', 'Rows below', 1, 0), move('←', 'Columns before', 0, -1), move('→', 'Columns after', 0, 1),
        el('label', {}, 'row ', this.#row), el('label', {}, 'column ', this.#column), this.#place),
      this.#table);
  }

  #input(name: string): HTMLInputElement {
    return el('input', { type: 'number', min: 0, value: 0, name, onchange: () => this.goTo(Number(this.#row.value), Number(this.#column.value)) });
  }

  show(tensor: ShownTensor, look: Look): void {
    if (tensor !== this.#tensor) [this.#top, this.#left, this.#marked] = [0, 0, null];
    [this.#tensor, this.#look] = [tensor, look];
    void this.#draw();
  }

  /** Move the window to a row and column of the view, and mark the element there. */
  goTo(row: number, column: number): void {
    const { rows, columns } = this.#size();
    const [r, c] = this.#isLine ? [Math.floor(column / this.#across), 0] : [row, column];
    this.#top = Math.max(0, Math.min(rows - 1, Math.floor(r / ROWS) * ROWS));
    this.#left = Math.max(0, Math.min(columns - 1, Math.floor(c / this.#across) * this.#across));
    this.#marked = [row, column];
    void this.#draw();
  }

  #move(down: number, across: number): void {
    const { rows, columns } = this.#size();
    const limited = (value: number, side: number, step: number): number => Math.max(0, Math.min(Math.floor((side - 1) / step) * step, value));
    this.#top = limited(this.#top + down * ROWS, rows, ROWS);
    this.#left = limited(this.#left + across * this.#across, columns, this.#across);
    void this.#draw();
  }

  #key(event: KeyboardEvent): void {
    const moves: Record<string, [number, number]> = { PageDown: [1, 0], PageUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [-Infinity, -Infinity] };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (event.key === 'Home') [this.#top, this.#left] = [0, 0];
    else {
      this.#move(...move);
      return;
    }
    void this.#draw();
  }

  /** Columns of the table that there is room for. */
  get #across(): number {
    return Math.max(3, Math.min(12, Math.floor((this.element.clientWidth - 80) / 84)));
  }

  /** Without an axis that runs down, the elements are wrapped. */
  get #isLine(): boolean {
    return this.#look !== null && !this.#look.view.some(({ role }) => role === 'rows');
  }

  #size(): { rows: number; columns: number } {
    const { rows, columns } = this.#look ? lieOf(this.#look.view) : { rows: 1, columns: 1 };
    return this.#isLine ? { rows: Math.ceil(columns / this.#across), columns: 1 } : { rows, columns };
  }

  async #draw(): Promise<void> {
    const [look, tensor, turn] = [this.#look, this.#tensor, ++this.#turn];
    if (!look || !tensor) return;
    const { rows, columns } = lieOf(look.view);
    const width = this.#across;
    const isLine = this.#isLine;
    const down = Math.min(ROWS, this.#size().rows - this.#top);
    const across = isLine ? width : Math.min(width, columns - this.#left);
    const placeOf = (r: number, c: number): [number, number] => (isLine ? [0, (this.#top + r) * width + c] : [this.#top + r, this.#left + c]);
    const [firstRow, firstColumn] = placeOf(0, 0);
    const [lastRow, lastColumn] = [Math.min(rows - 1, placeOf(down - 1, 0)[0]), Math.min(columns - 1, placeOf(down - 1, across - 1)[1])];
    const found = await this.#window(tensor, look, firstRow, lastRow, firstColumn, lastColumn);
    if (turn !== this.#turn) return;
    const head = Array.from({ length: across }, (_, c) => el('th', { scope: 'col' }, isLine ? `+${c}` : grouped(indexAt(look.view, 0, this.#left + c)[axisOf(look.view, 'columns')] ?? 0)));
    const body = Array.from({ length: down }, (_, r) => {
      const index = indexAt(look.view, ...placeOf(r, 0))[axisOf(look.view, isLine ? 'columns' : 'rows')] ?? 0;
      return el('tr', {}, el('th', { scope: 'row' }, grouped(index)), ...Array.from({ length: across }, (_, c) => this.#cell(look, found, ...placeOf(r, c))));
    });
    fill(this.#table, el('table', {}, el('thead', {}, el('tr', {}, el('td', {}), ...head)), el('tbody', {}, ...body)));
    const place = isLine ? `${grouped(firstColumn)} to ${grouped(lastColumn)} of ${grouped(columns)}`
      : `rows ${grouped(firstRow)} to ${grouped(lastRow)} of ${grouped(rows)}, columns ${grouped(firstColumn)} to ${grouped(lastColumn)} of ${grouped(columns)}`;
    fill(this.#place, place);
    [this.#row.value, this.#column.value] = [String(firstRow), String(firstColumn)];
    this.#row.disabled = isLine;
  }

  #cell(look: Look, found: (row: number, column: number) => Cell | null, row: number, column: number): HTMLElement {
    if (column >= look.columns) return el('td', {});
    const cell = found(row, column);
    if (cell === null) return el('td', { class: 'damaged' }, 'damaged');
    const isMarked = this.#marked?.[0] === row && this.#marked[1] === column;
    const full = elementText(cell.elements, cell.at);
    return el('td', { title: full, class: isMarked ? 'marked' : /^-?(nan|inf)/.test(full) ? 'odd' : null }, elementBrief(cell.elements, cell.at));
  }

  /** Where the elements of a window are: in what was read already, or read for it. */
  async #window(tensor: ShownTensor, look: Look, top: number, bottom: number, left: number, right: number): Promise<(row: number, column: number) => Cell | null> {
    const isThere = (row: number): boolean => bandAt(look, row) !== undefined && right < look.across.first + look.across.count;
    if (isThere(top) && isThere(bottom) && bandAt(look, top) === bandAt(look, bottom)) {
      const band = bandAt(look, top)!;
      return (row, column) => (band.elements ? { elements: band.elements, at: positionIn(look, band, row, column) } : null);
    }
    const rowsOf = new Map<number, Cell>();
    const across = { first: left, count: right - left + 1 };
    const read = async (first: number, count: number): Promise<void> => {
      try {
        const elements = await tensor.read(selectionOf(look.view, { first, count }, across));
        for (let row = first; row < first + count; row++) rowsOf.set(row, { elements, at: row - first });
        counts.set(elements, count);
      } catch (error) {
        if (!isDamage(error)) throw error;
        if (count === 1) return;
        await read(first, Math.floor(count / 2));
        await read(first + Math.floor(count / 2), count - Math.floor(count / 2));
      }
    };
    const counts = new Map<Elements, number>();
    try {
      await read(top, bottom - top + 1);
    } catch (error) {
      this.failed(error);
    }
    const flipped = isTransposed(look.view);
    return (row, column) => {
      const cell = rowsOf.get(row);
      if (!cell) return null;
      const [r, c] = [cell.at, column - left];
      return { elements: cell.elements, at: flipped ? c * counts.get(cell.elements)! + r : r * across.count + c };
    };
  }
}

const axisOf = (view: View, role: 'rows' | 'columns'): number => view.findIndex((axis) => axis.role === role);
