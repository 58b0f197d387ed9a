// The control of what is looked at: an index as NumPy writes it, and for each axis what it does.

import { el, fill } from './dom.js';
import { type Axis, type View, parseView, viewText, withRole } from './view.js';

export class AxesControl {
  readonly element: HTMLElement;
  readonly #text: HTMLInputElement;
  readonly #problem: HTMLElement;
  readonly #axes: HTMLElement;
  #shape: readonly number[] = [];
  #view: View = [];

  constructor(readonly changed: (view: View) => void) {
    this.#problem = el('p', { class: 'problem', role: 'alert', id: 'index-problem' });
    this.#text = el('input', {
      type: 'text', id: 'index', spellcheck: 'false', autocomplete: 'off', 'aria-describedby': 'index-problem index-help',
      onchange: () => this.#typed(),
    });
    this.#axes = el('div', { class: 'axes' });
    this.element = el('div', { class: 'axes-control' },
      el('div', { class: 'index' }, el('label', { for: 'index' }, 'Slice'), this.#text,
        el('span', { class: 'quiet', id: 'index-help' }, 'as in NumPy: 0, :, 10:20')),
      this.#problem, this.#axes);
  }

  show(shape: readonly number[], view: View): void {
    [this.#shape, this.#view] = [shape, view];
    this.#text.value = viewText(view, shape);
    this.#text.disabled = shape.length === 0;
    fill(this.#problem);
    fill(this.#axes, ...(shape.length > 1 ? view.map((axis, number) => this.#axis(axis, number)) : []));
  }

  #typed(): void {
    try {
      this.#set(parseView(this.#text.value, this.#shape, this.#view));
    } catch (error) {
      fill(this.#problem, (error as Error).message);
      this.#text.setAttribute('aria-invalid', 'true');
    }
  }

  #set(view: View, focus?: string): void {
    this.#text.removeAttribute('aria-invalid');
    this.show(this.#shape, view);
    if (focus) this.#axes.querySelector<HTMLElement>(`#${focus}`)?.focus();
    this.changed(view);
  }

  #axis(axis: Axis, number: number): HTMLElement {
    const side = this.#shape[number]!;
    const role = el('select', { id: `role-${number}`, 'aria-label': `What axis ${number} does`, onchange: () => {
      this.#set(withRole(this.#view, number, role.value as Axis['role']), role.id);
    } }, ...(['rows', 'columns', 'fixed'] as const).map((name) =>
      el('option', { value: name, selected: name === axis.role }, { rows: 'down', columns: 'across', fixed: 'one index' }[name])));
    const still = axis.role === 'fixed' && side > 1 ? this.#index(axis, number, side) : [];
    return el('div', { class: 'axis' }, el('span', { class: 'axis-name' }, `axis ${number}`, el('span', { class: 'quiet' }, ` ${side.toLocaleString('en-US')}`)), role, ...still);
  }

  #index(axis: Axis, number: number, side: number): HTMLElement[] {
    const to = (input: HTMLInputElement) => (): void => {
      const index = Math.max(0, Math.min(side - 1, Math.trunc(Number(input.value)) || 0));
      this.#set(this.#view.map((one, i) => (i === number ? { ...one, index } : one)), input.id);
    };
    const slider: HTMLInputElement = el('input', { type: 'range', id: `slide-${number}`, min: 0, max: side - 1, value: axis.index, 'aria-label': `Index of axis ${number}` });
    slider.addEventListener('change', to(slider));
    slider.addEventListener('input', () => (exact.value = slider.value));
    const exact: HTMLInputElement = el('input', { type: 'number', id: `at-${number}`, min: 0, max: side - 1, value: axis.index, 'aria-label': `Index of axis ${number}, as a number` });
    exact.addEventListener('change', to(exact));
    return [slider, exact];
  }
}
