// Tabs as WAI-ARIA has them: one of them is in the order of the Tab key, arrows move between them.

import { el, fill } from './dom.js';

export class Tabs {
  readonly element: HTMLElement;
  #tabs = new Map<string, { tab: HTMLElement; panel: HTMLElement; note: HTMLElement }>();
  chosen: string;

  constructor(names: readonly (readonly [string, string])[]) {
    for (const [id, text] of names) {
      const note = el('span', { class: 'count' });
      const tab = el('button', { type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': `panel-${id}`, onclick: () => this.choose(id) }, text, note);
      const panel = el('div', { role: 'tabpanel', id: `panel-${id}`, 'aria-labelledby': `tab-${id}`, tabindex: 0 });
      this.#tabs.set(id, { tab, panel, note });
    }
    this.chosen = names[0]![0];
    const list = el('div', { class: 'tabs', role: 'tablist', 'aria-label': 'What is shown', onkeydown: (event: KeyboardEvent) => this.#key(event) },
      ...Array.from(this.#tabs.values(), ({ tab }) => tab));
    this.element = el('div', {}, list, ...Array.from(this.#tabs.values(), ({ panel }) => panel));
    this.choose(this.chosen);
  }

  panel(id: string): HTMLElement {
    return this.#tabs.get(id)!.panel;
  }

  note(id: string, text: string): void {
    fill(this.#tabs.get(id)!.note, text);
  }

  setHidden(id: string, isHidden: boolean): void {
    this.#tabs.get(id)!.tab.hidden = isHidden;
  }

  choose(id: string): void {
    this.chosen = id;
    for (const [name, { tab, panel }] of this.#tabs) {
      tab.setAttribute('aria-selected', String(name === id));
      tab.tabIndex = name === id ? 0 : -1;
      panel.hidden = name !== id;
    }
  }

  #key(event: KeyboardEvent): void {
    const there = Array.from(this.#tabs).filter(([, { tab }]) => !tab.hidden);
    const at = there.findIndex(([name]) => name === this.chosen);
    const to: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1 + there.length, Home: 0, End: there.length - 1 };
    const number = to[event.key];
    if (number === undefined) return;
    const [id, { tab }] = there[number % there.length]!;
    this.choose(id);
    tab.focus();
    event.preventDefault();
  }
}
