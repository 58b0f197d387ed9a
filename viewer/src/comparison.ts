// Two slices beside each other: the one that was pinned, the one that is looked at, and where their shapes agree what
// differs.

import { scaleOf } from './colours.js';
import { el, fill } from './dom.js';
import { HeatMap } from './heat_map.js';
import { type Look, bandAt, positionIn } from './look.js';
import { type Figures, endsOf, figures, numberAt } from './numbers.js';
import { type Seen, figureRows, seenText } from './panel.js';
import type { Elements } from './shown.js';
import { brief, grouped, perElement, visible } from './text.js';

export interface Difference {
  figures: Figures;
  /** Elements that are not equal, and of how many. */
  different: number;
  of: number;
  greatest: number;
}

/** The second less the first, where both were read; null where shapes do not agree. */
export async function differenceOf(first: Seen, second: Seen): Promise<Difference | null> {
  const [one, two] = [first.look, second.look];
  if (one.rows !== two.rows || one.columns !== two.columns) return null;
  const across = { first: 0, count: Math.min(one.across.count, two.across.count) };
  let [different, of, greatest] = [0, 0, 0];
  const bands = [];
  for (const band of two.bands) {
    for (let row = band.first; row < band.first + band.count; row++) {
      const other = bandAt(one, row);
      if (!band.elements || !other?.elements) continue;
      const data = new Float64Array(across.count);
      for (let column = 0; column < across.count; column++) {
        const [a, b] = [positionIn(one, other, row, column), positionIn(two, band, row, column)];
        const [x, y] = [valueAt(other.elements, a), valueAt(band.elements, b)];
        of++;
        if (!isSame(other.elements, a, band.elements, b)) different++;
        data[column] = x === y || (x !== x && y !== y) ? 0 : y - x;
        if (Math.abs(data[column]!) > greatest) greatest = Math.abs(data[column]!);
      }
      bands.push({ first: row, count: 1, elements: { dtype: 'float64', shape: [1, across.count], data } satisfies Elements });
    }
  }
  const whole: Look = { ...two, across, bands, isTransposed: false, isWhole: of === one.rows * one.columns, faults: [] };
  return { figures: await figures(whole), different, of, greatest };
}

const valueAt = numberAt;

function isSame(one: Elements, a: number, two: Elements, b: number): boolean {
  if (perElement(one.dtype) !== perElement(two.dtype)) return false;
  for (let part = 0; part < perElement(one.dtype); part++) {
    const [x, y] = [one.data[a * perElement(one.dtype) + part], two.data[b * perElement(two.dtype) + part]];
    if (x !== y && !(x !== x && y !== y) && !(typeof x !== typeof y && Number(x) === Number(y))) return false;
  }
  return true;
}

export class Comparison {
  readonly element = el('section', { class: 'card comparison', hidden: true, 'aria-labelledby': 'comparison-title' });
  #pinned: Seen | null = null;
  #turn = 0;

  get pinned(): Seen | null {
    return this.#pinned;
  }

  constructor(readonly ended: (seen: Seen) => void) {}

  pin(seen: Seen): void {
    const former = this.#pinned;
    this.#pinned = seen;
    if (former && former.shown !== seen.shown) this.ended(former);
    this.show(null);
  }

  unpin(): void {
    const former = this.#pinned;
    this.#pinned = null;
    this.element.hidden = true;
    if (former) this.ended(former);
  }

  /** Show the pinned slice beside another. */
  show(seen: Seen | null): void {
    const pinned = this.#pinned;
    if (!pinned) return;
    this.element.hidden = false;
    const turn = ++this.#turn;
    const end = el('button', { type: 'button', onclick: () => this.unpin() }, 'End the comparison');
    const head = el('div', { class: 'toolbar' }, el('h2', { id: 'comparison-title' }, 'Comparison'), end);
    const isItself = seen === null || (seen.tensor === pinned.tensor && seen.look.view === pinned.look.view);
    if (seen === null || isItself) {
      fill(this.element, head, el('p', {}, 'Pinned: ', el('b', {}, nameOf(pinned, pinned)), '. Choose another tensor, slice, step or file to see it beside this one.'));
      return;
    }
    fill(this.element, head, el('p', { class: 'quiet' }, 'Comparing …'));
    void differenceOf(pinned, seen).then((difference) => turn === this.#turn && this.#draw(head, pinned, seen, difference));
  }

  #draw(head: HTMLElement, pinned: Seen, seen: Seen, difference: Difference | null): void {
    const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
    const [one, two] = [pinned.figures, seen.figures];
    const [a, b] = [endsOf(one.cells), endsOf(two.cells)];
    const scale = scaleOf(Math.min(a[0], b[0]), Math.max(a[1], b[1]), isDark);
    const picture = (title: string, { cells }: Figures, of = scale): HTMLElement => {
      const readout = el('p', { class: 'readout' });
      const heat = new HeatMap({ label: title, chosen: () => undefined, moved: (row, column) => {
        const value = cells.mean[Math.floor(row / cells.down) * cells.columns + Math.floor(column / cells.across)]!;
        fill(readout, `row ${grouped(row)}, column ${grouped(column)}: ${brief(value)}`);
      } });
      heat.draw(cells, of);
      return el('div', { class: 'side' }, el('h3', {}, title), heat.element, readout);
    };
    const sides = [picture(nameOf(pinned, seen), one), picture(nameOf(seen, pinned), two)];
    if (difference) {
      const ends = endsOf(difference.figures.cells);
      const most = Math.max(-ends[0], ends[1]);
      sides.push(picture('Difference: second less first', difference.figures, most > 0 ? scaleOf(-most, most, isDark) : scaleOf(-1, 1, isDark)));
    }
    const words = !difference ? `The shapes differ: ${pinned.look.rows} × ${pinned.look.columns} and ${seen.look.rows} × ${seen.look.columns}.`
      : difference.of === 0 ? 'No element of both was read.'
        : difference.different === 0 ? `All ${grouped(difference.of)} elements that were read of both are equal.`
          : `${grouped(difference.different)} of ${grouped(difference.of)} elements differ, by ${brief(difference.greatest)} at most.`;
    fill(this.element, head, el('p', { role: 'status', class: difference?.different === 0 ? 'good' : null }, words),
      el('div', { class: 'sides' }, ...sides), figuresTable([['first', one], ['second', two], ...(difference ? [['difference', difference.figures] as const] : [])]));
  }
}

function figuresTable(rows: readonly (readonly [string, Figures])[]): HTMLElement {
  const names = figureRows(rows[0]![1].statistics).map(([name]) => name);
  return el('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Figures of both' }, el('table', {},
    el('thead', {}, el('tr', {}, el('td', {}), ...names.map((name) => el('th', { scope: 'col' }, name)))),
    el('tbody', {}, ...rows.map(([name, { statistics }]) => el('tr', {}, el('th', { scope: 'row' }, name),
      ...figureRows(statistics).map(([, text]) => el('td', { class: 'number' }, text)))))));
}

/** The slice, and the file where the other one is of another. */
function nameOf(seen: Seen, other: Seen): string {
  return visible(seen.shown === other.shown ? seenText(seen) : `${seen.shown.name}: ${seenText(seen)}`);
}
