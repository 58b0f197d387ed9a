// The checkpoints of a folder: which is looked at, and what is known of each.

import { line } from './charts.js';
import { el, fill } from './dom.js';
import type { Index, Listed } from './served.js';
import { brief, bytes, count, visible } from './text.js';

export class RunView {
  readonly element = el('div', { class: 'run' });
  readonly switcher = el('div', { class: 'switcher', hidden: true });
  #index: Index | null = null;
  #go: (at: number) => void = () => undefined;
  #at = -1;

  get isFolder(): boolean {
    return this.#index?.folder ?? false;
  }

  show(index: Index, go: (at: number) => void): void {
    [this.#index, this.#go] = [index, go];
    this.#draw();
  }

  /** Say which one is looked at. */
  mark(at: number): void {
    this.#at = at;
    this.#draw();
  }

  #draw(): void {
    const index = this.#index;
    if (!index?.folder) return;
    const steps = index.checkpoints;
    this.switcher.hidden = false;
    const readable = steps.flatMap(({ at }, i) => (at === null ? [] : [i]));
    const place = readable.indexOf(this.#at);
    const move = (text: string, name: string, to: number | undefined): HTMLElement =>
      el('button', { type: 'button', class: 'square', 'aria-label': name, title: name, disabled: to === undefined, onclick: () => to !== undefined && this.#go(to) }, text);
    const select = el('select', { 'aria-label': 'Checkpoint of this folder', onchange: () => this.#go(Number(select.value)) },
      el('option', { value: '', selected: this.#at < 0, disabled: true }, `Choose of ${readable.length}`),
      ...readable.map((i) => el('option', { value: i, selected: i === this.#at }, labelOf(steps[i]!))));
    fill(this.switcher, move('‹', 'The checkpoint before', place > 0 ? readable[place - 1] : undefined), select,
      move('›', 'The next checkpoint', readable[place + 1]));
    this.#table(index);
  }

  #table({ path, checkpoints }: Index): void {
    const metrics = [...new Set(checkpoints.flatMap((row) => Object.keys(row.metrics)))].slice(0, 6);
    const head = ['name', 'step', 'saved', 'size', ...metrics, ''].map((name) => el('th', { scope: 'col' }, name === '' ? el('span', { class: 'unseen' }, 'notes') : visible(name)));
    const rows = checkpoints.map((row, i) => el('tr', { class: i === this.#at ? 'current' : null },
      el('th', { scope: 'row' }, row.at === null ? visible(row.name) : el('button', { type: 'button', class: 'link', onclick: () => this.#go(i) }, visible(row.name))),
      el('td', { class: 'number' }, row.step === null ? '' : String(row.step)),
      el('td', {}, row.time === null ? '' : new Date(row.time * 1000).toLocaleString()),
      el('td', { class: 'number' }, row.size === null ? '' : bytes(row.size)),
      ...metrics.map((name) => el('td', { class: 'number' }, metricText(row.metrics[name]))),
      el('td', {}, row.error ? el('span', { class: 'mark damaged' }, row.error) : row.advice ? el('span', { class: 'quiet' }, `${row.format ?? ''}: `, el('code', {}, visible(row.advice)))
        : row.kept.length ? el('span', { class: 'quiet' }, `kept: ${visible(row.kept.join(', '))}`) : '')));
    const lines = metrics.map((name) => {
      const points = checkpoints.flatMap(({ step, metrics: found }): [number, number][] => (step === null || typeof found[name] !== 'number' ? [] : [[step, found[name]]]));
      return el('div', { class: 'side' }, el('h3', {}, visible(name)), line(visible(name), points));
    });
    fill(this.element, el('section', { class: 'card' }, el('h2', {}, visible(path)), el('p', {}, count(checkpoints.length, 'checkpoint')),
      el('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Checkpoints of this folder' }, el('table', { class: 'steps' },
        el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)))),
    metrics.length > 0 && el('section', { class: 'card' }, el('h2', {}, 'Metrics over steps'), el('div', { class: 'sides' }, ...lines)));
  }
}

function labelOf(row: Listed): string {
  return `${row.step === null ? visible(row.name) : `step ${row.step}`}${row.error ? ` · ${row.error}` : ''}`;
}

const metricText = (value: number | string | undefined): string => (typeof value === 'number' ? brief(value) : value ?? '');
