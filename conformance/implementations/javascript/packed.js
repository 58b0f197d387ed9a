// Layout `packed` (sections 7 and 8): many parts, each with some of the chunks, and their placement.

import { createHash } from 'node:crypto';
import { Parts, TABLE, column } from './chunks.js';
import { need } from './faults.js';
import { isPath, map, bin, str, uint } from './manifest.js';
import { decode } from './msgpack.js';

const REFERENCE = map({ path: str, length: uint, sha256: bin });
const PLACEMENT = Object.entries({ tensor: 4, chunk: 8, count: 8, part: 4, step: 4 }); // bytes of a value
const LIMIT = 1 << 30; // bytes of a part manifest [LIM-001]
const END = 1n << 63n; // sizes and lengths are below it [MAN-011]

/** All chunks of a packed checkpoint. Part manifests are loaded when one of their chunks is wanted [CHK-006]. */
export class PackedParts extends Parts {
  check(manifest) {
    need(this.parts.length, 'CHK-002', 'no parts');
    this.parts.forEach((part) => this.checkPart(part));
    const objects = new Set(this.parts.map((part) => part.get('object')));
    need(objects.size === this.parts.length, 'LAY-004', 'two parts have one object');
    const paths = this.parts.map((part) => part.get('chunks').get('path')).filter(str);
    const apart = new Set([...objects, ...paths]).size === objects.size + paths.length;
    need(apart, 'CHK-009', 'two part manifests have one path, or one has that of an object');
    this.runs = this.placement(manifest.get('placement'));
  }

  /** The part that `placement` gives a chunk to: the last run that does not begin after it is found by bisection. */
  partOf(number) {
    let [low, high] = [0, this.runs.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.runs[middle].first <= number) low = middle;
      else high = middle;
    }
    const { first, part, step } = this.runs[low];
    return part + (number - first) * step;
  }

  table(index) {
    const chunks = super.table(index);
    if (!chunks.has('path')) return chunks;
    const [path, length] = [chunks.get('path'), Number(chunks.get('length'))];
    need(length <= LIMIT, 'LIM-009', `${path} is said to have ${length} bytes`, 'limit-exceeded');
    const bytes = this.storage.read(path, 0, length + 1);
    const good = bytes.length === length && createHash('sha256').update(bytes).digest().equals(chunks.get('sha256'));
    need(good, 'CHK-006', `${path} has another length or sha256`, 'manifest-digest');
    const table = decode(bytes);
    need(TABLE(table), 'MAN-002', `${path} is no chunk table`);
    return table;
  }

  /** The chunks that a table names, in ascending order, or all of them [CHK-003] [CHK-004]; as `placement` has them. */
  numbers(index, table, rows) {
    let numbers = [];
    if (table.get('tensor') === null) {
      numbers = super.numbers(index, table, rows);
    } else {
      const [tensors, chunks] = [column(table.get('tensor'), 4), column(table.get('chunk'), 8)];
      need(tensors.length === rows && chunks.length === rows, 'CHK-001', 'the columns differ in length');
      const there = (tensor, row) => tensor < this.tensors.length && chunks[row] < this.tensors[tensor].chunkCount;
      need(tensors.every(there), 'CHK-004', 'a row names a chunk that is not there');
      numbers = tensors.map((tensor, row) => this.firsts[tensor] + chunks[row]);
      need(numbers.every((number, row) => row === 0 || numbers[row - 1] < number), 'CHK-003', 'rows are not sorted');
    }
    const placed = rows === this.placed(index) && numbers.every((number) => this.partOf(number) === index);
    need(placed, 'CHK-008', `part ${index} has other chunks than \`placement\` says`);
    return numbers;
  }

  checkPart(part) {
    const [name, size, frame, chunks] = ['object', 'size', 'frame', 'chunks'].map((key) => part.get(key));
    const good = str(name) && isPath(name) && size !== null && frame?.length === this.digestSize;
    need(good, 'MAN-002', 'object, size or frame of a part do not fit the layout');
    need(size < END, 'MAN-011', 'a pack of 2⁶³ bytes or more');
    if (!chunks.has('path')) return need(TABLE(chunks), 'MAN-002', 'a chunk table lacks a column, or has another type');
    need(REFERENCE(chunks) && isPath(chunks.get('path')) && chunks.get('sha256').length === 32,
      'CHK-007', 'the reference to a part manifest does not fit');
    return need(chunks.get('length') < END, 'MAN-011', 'a part manifest of 2⁶³ bytes or more');
  }

  /** The rows of `placement`, each with the number of its first chunk [CHK-008]. */
  placement(columns) {
    const values = PLACEMENT.map(([name, width]) => column(columns.get(name), width));
    need(new Set(values.map((one) => one.length)).size === 1, 'CHK-008', 'the columns of `placement` differ in length');
    let next = 0;
    const runs = Array.from(values[0], (tensor, row) => {
      const [, chunk, count, part, step] = values.map((one) => one[row]);
      const first = this.firsts[tensor] + chunk;
      const inside = tensor < this.tensors.length && count >= 1 && chunk + count <= this.tensors[tensor].chunkCount;
      const good = inside && first === next && part + (count - 1) * step < this.parts.length;
      need(good, 'CHK-008', '`placement` does not cover every chunk once and in order');
      next += count;
      return { first, count, part, step };
    });
    need(next === this.firsts.at(-1), 'CHK-008', '`placement` does not cover every chunk');
    return runs;
  }

  /** How many chunks `placement` gives to a part. */
  placed(index) {
    return this.runs.reduce((sum, { count, part, step }) => {
      const i = step === 0 ? 0 : (index - part) / step;
      if (step === 0) return sum + (part === index ? count : 0);
      return sum + (Number.isInteger(i) && i >= 0 && i < count ? 1 : 0);
    }, 0);
  }
}
