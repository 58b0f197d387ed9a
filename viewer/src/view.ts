// Which part of a tensor is looked at: one axis runs down, one across, and the others stand still. Pure.

import type { Pick } from './shown.js';

export interface Axis {
  role: 'rows' | 'columns' | 'fixed';
  /** Where it stands still. */
  index: number;
  /** The part of it that runs. */
  start: number;
  stop: number;
  step: number;
}

export type View = readonly Axis[];

/** The last two axes run, the others stand at 0. */
export function initialView(shape: readonly number[]): View {
  return shape.map((side, axis) => ({
    role: axis === shape.length - 1 ? 'columns' : axis === shape.length - 2 ? 'rows' : 'fixed',
    index: 0, start: 0, stop: side, step: 1,
  }));
}

export const lengthOf = ({ start, stop, step }: Axis): number => Math.max(0, Math.ceil((stop - start) / step));

/** What a read of the view takes, of the rows from `first` on, `count` of them, and likewise of columns. */
export function selectionOf(view: View, rows?: Run, columns?: Run): Pick {
  return view.map((axis) => {
    if (axis.role === 'fixed') return axis.index;
    const run = axis.role === 'rows' ? rows : columns;
    const { first, count } = run ?? { first: 0, count: lengthOf(axis) };
    const start = axis.start + first * axis.step;
    return { start, stop: Math.min(axis.stop, start + count * axis.step), step: axis.step };
  });
}

export interface Run {
  first: number;
  count: number;
}

/** How the elements of a view lie in an array: position = row · down + column · across. */
export interface Lie {
  rows: number;
  columns: number;
}

export function lieOf(view: View): Lie {
  const of = (role: Axis['role']): number => {
    const axis = view.find((one) => one.role === role);
    return axis === undefined ? 1 : lengthOf(axis);
  };
  return { rows: of('rows'), columns: of('columns') };
}

/** Whether the axis of the columns stands before that of the rows, so that what is read is transposed. */
export function isTransposed(view: View): boolean {
  const [rows, columns] = [view.findIndex(({ role }) => role === 'rows'), view.findIndex(({ role }) => role === 'columns')];
  return rows >= 0 && columns >= 0 && columns < rows;
}

/** The index in the tensor of a row and a column of the view. */
export function indexAt(view: View, row: number, column: number): number[] {
  return view.map((axis) => {
    if (axis.role === 'fixed') return axis.index;
    return axis.start + (axis.role === 'rows' ? row : column) * axis.step;
  });
}

/** As NumPy and `ckptfmt get` have it: `0, :, 10:20`. */
export function viewText(view: View, shape: readonly number[]): string {
  return view.map((axis, number) => {
    if (axis.role === 'fixed') return String(axis.index);
    const start = axis.start === 0 ? '' : String(axis.start);
    const stop = axis.stop === shape[number] ? '' : String(axis.stop);
    return `${start}:${stop}${axis.step === 1 ? '' : `:${axis.step}`}`;
  }).join(', ');
}

/** The view that a text asks for; throws an Error whose message says what is wrong. Of several axes that run, the last two do. */
export function parseView(text: string, shape: readonly number[], former: View): View {
  const words = text.trim() === '' ? [] : text.split(',').map((word) => word.trim());
  if (words.length > shape.length) throw new Error(`${words.length} indices for ${shape.length} axes`);
  const axes = shape.map((side, number) => axisOf(words[number] ?? ':', side, number));
  const running = axes.flatMap((axis, number) => (axis.role === 'fixed' ? [] : [number]));
  const kept = running.slice(-2);
  const isSame = kept.every((number) => former[number]?.role !== 'fixed');
  return axes.map((axis, number) => {
    if (!kept.includes(number)) return { ...axis, role: 'fixed', index: axis.role === 'fixed' ? axis.index : axis.start };
    const role = isSame && kept.length === 2 ? former[number]!.role : number === kept.at(-1) ? 'columns' : 'rows';
    return { ...axis, role };
  });
}

function axisOf(word: string, side: number, number: number): Axis {
  const whole = { index: 0, start: 0, stop: side, step: 1 };
  if (/^-?[0-9]+$/.test(word)) {
    const index = Number(word) < 0 ? Number(word) + side : Number(word);
    if (index < 0 || index >= side) throw new Error(`${word} is outside of axis ${number}, which has ${side}`);
    return { ...whole, role: 'fixed', index };
  }
  const match = /^(-?[0-9]*):(-?[0-9]*)(?::([0-9]*))?$/.exec(word);
  if (match === null) throw new Error(`"${word}" is no index and no slice such as 10:20 or ::2`);
  const bound = (digits: string | undefined, otherwise: number): number => {
    if (digits === undefined || digits === '') return otherwise;
    const value = Number(digits);
    return Math.min(side, Math.max(0, value < 0 ? value + side : value));
  };
  const step = match[3] ? Number(match[3]) : 1;
  if (step < 1) throw new Error(`the step of "${word}" is below 1`);
  const start = bound(match[1], 0);
  return { ...whole, role: 'columns', start, stop: Math.max(start, bound(match[2], side)), step };
}

/** Give an axis a role; the axis that had it takes what is left. */
export function withRole(view: View, axis: number, role: Axis['role']): View {
  const former = view[axis]!.role;
  return view.map((one, number) => {
    if (number === axis) return { ...one, role };
    return role !== 'fixed' && one.role === role ? { ...one, role: former } : one;
  });
}
