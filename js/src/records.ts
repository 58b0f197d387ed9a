// Records of migrations, repairs and upgrades: a key of the manifest that readers ignore, for people to look at [MIG-017].

import { Float, type Item } from './msgpack.js';
import { Dict, type Value } from './values.js';

/** What the key holds, as values; null where it is no list. */
export function recordsOf(item: Item | undefined): Value {
  return Array.isArray(item) ? valueOf(item) : null;
}

function valueOf(item: Item): Value {
  if (item instanceof Float) return item.value;
  if (typeof item === 'number') return BigInt(item);
  if (Array.isArray(item)) return item.map(valueOf);
  if (item instanceof Map) return new Dict(Array.from(item, ([key, value]): [string, Value] => [key, valueOf(value)]));
  return item;
}
