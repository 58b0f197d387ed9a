// Rows and chunks, beside the plainest way to say the same: element by element.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rows, boxOf, chunkAt, chunkNumber, chunksOf } from '../dist/grid.js';

/** Numbers from 0 to below `end`, always the same ones. */
function chance(seed) {
  let state = seed;
  return (end) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
}

function kindOf(shape, grid) {
  const chunkCounts = shape.map((side, axis) => Math.ceil(side / grid[axis]));
  return { dtype: 'uint8', shape, sides: shape, grid, chunkCounts, chunkCount: chunkCounts.reduce((a, b) => a * b, 1) };
}

test('every selection gives the elements that it names', () => {
  const next = chance(1);
  for (let round = 0; round < 3000; round++) {
    const rank = next(4);
    const shape = Array.from({ length: rank }, () => 1 + next(6));
    const grid = shape.map((side) => 1 + next(side));
    const kind = kindOf(shape, grid);
    const selection = shape.map((side) => (next(4) === 0 ? next(side)
      : { start: next(side + 1), stop: next(side + 1), step: 1 + next(4) }));
    const { axes, shape: given } = boxOf(kind, selection);
    const expected = [];
    const visit = (axis, flat) => {
      if (axis === rank) expected.push(flat % 251);
      else for (let i = 0; i < axes[axis].count; i++) visit(axis + 1, flat * shape[axis] + axes[axis].start + i * axes[axis].step);
    };
    visit(0, 0);
    assert.equal(expected.length, given.reduce((a, b) => a * b, 1));
    if (expected.length === 0) continue;
    const out = new Uint8Array(expected.length);
    for (const at of chunksOf(axes, grid)) {
      const place = at.map(({ chunk }) => chunk);
      assert.deepEqual(chunkAt(kind, chunkNumber(kind, place)), place);
      const chunk = chunkOf(shape, grid, place);
      const pieceSize = 1 + next(chunk.length);
      const rows = new Rows(axes, at, grid, 1);
      for (let start = 0; start < chunk.length; start += pieceSize) {
        const piece = chunk.subarray(start, start + pieceSize);
        while (!rows.done && rows.source < start + piece.length && rows.copy(piece, start, out)) rows.next();
      }
      assert.ok(rows.done);
    }
    assert.deepEqual([...out], expected);
  }
});

function chunkOf(shape, grid, place) {
  const size = grid.reduce((a, b) => a * b, 1);
  return Uint8Array.from({ length: size }, (_, number) => {
    let [rest, flat, stride, inside] = [number, 0, 1, true];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const at = place[axis] * grid[axis] + (rest % grid[axis]);
      rest = Math.floor(rest / grid[axis]);
      flat += at * stride;
      stride *= shape[axis];
      inside &&= at < shape[axis];
    }
    return inside ? flat % 251 : 255; // padding is never given
  });
}

test('selections as NumPy has them', () => {
  const kind = kindOf([5, 4], [5, 4]);
  assert.deepEqual(boxOf(kind, []).shape, [5, 4]);
  assert.deepEqual(boxOf(kind, [-1]).shape, [4]);
  assert.deepEqual(boxOf(kind, [null, { start: -3, stop: -1 }]).axes[1], { start: 1, step: 1, count: 2 });
  assert.deepEqual(boxOf(kind, [{ start: 4, stop: 2 }]).shape, [0, 4]);
  assert.deepEqual(boxOf(kind, [{ stop: Infinity, step: 3 }]).shape, [2, 4]);
  for (const wrong of [[5], [-6], [1.5], [NaN], [{ step: 0 }], [{ step: -1 }], [{ start: 0.5 }], [0, 0, 0], ['x'], 'x', [{ stop: NaN }]]) {
    assert.throws(() => boxOf(kind, wrong), (error) => error.code === 'bad-index', JSON.stringify(wrong));
  }
});

test('chunks are found one by one, however many there are', () => {
  const far = chunksOf([{ start: 0, step: 1, count: 2 ** 52 }], [1]);
  assert.deepEqual(far.next().value, [{ chunk: 0, first: 0, count: 1, offset: 0 }]);
  assert.deepEqual(far.next().value, [{ chunk: 1, first: 1, count: 1, offset: 0 }]);
});
