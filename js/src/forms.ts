// The form of items of msgpack: the tables of section 7 are checked with these.

import type { Item, ItemMap } from './msgpack.js';

export type Form<T extends Item = Item> = (value: Item | undefined) => value is T;

export const any = (value: Item | undefined): value is Item => value !== undefined;
export const str = (value: Item | undefined): value is string => typeof value === 'string';
export const bool = (value: Item | undefined): value is boolean => typeof value === 'boolean';
export const bin = (value: Item | undefined): value is Uint8Array => value instanceof Uint8Array;
export const int = (value: Item | undefined): value is number | bigint => typeof value === 'number' || typeof value === 'bigint';
export const uint = (value: Item | undefined): value is number | bigint => int(value) && value >= 0;

export function list<T extends Item>(form: Form<T>): Form<T[]> {
  return (value): value is T[] => Array.isArray(value) && value.every(form);
}

export function orNil<T extends Item>(form: Form<T>): Form<T | null> {
  return (value): value is T | null => value === null || form(value);
}

/** A map with these keys; further ones are ignored [MAN-003]. */
export function map(forms: Readonly<Record<string, Form>>): Form<ItemMap> {
  const all = Object.entries(forms);
  return (value): value is ItemMap => value instanceof Map && all.every(([key, form]) => form(value.get(key)));
}

/** A map with these keys and no others. */
export function exactly(forms: Readonly<Record<string, Form>>): Form<ItemMap> {
  const form = map(forms);
  const size = Object.keys(forms).length;
  return (value): value is ItemMap => form(value) && value.size === size;
}

export function oneOf<T extends Item>(...values: T[]): Form<T> {
  return (value): value is T => values.includes(value as T);
}
