import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkNames, isPath, isPlain, keysOf, labelOf, nameOf, pathOf, shown } from '../dist/names.js';

const PATHS = [
  [['a', 'b'], 'a/b'], [['a', 0n], 'a/0'], [['a', '0'], 'a/~30'], [[-1n], '-1'], [['-1'], '~2D1'], [[''], '~'], [['a/b'], 'a~2Fb'],
  [['__init__'], '~5F_init__'], [['zarr.json'], '~7Aarr.json'], [['x.'], 'x~2E'], [['..'], '.~2E'], [['é'], '~C3~A9'], [['a b~'], 'a~20b~7E'], [[], ''],
];

for (const [path, name] of PATHS) {
  test(`${JSON.stringify(path, String)} is named ${name}`, () => {
    assert.equal(nameOf(path), name);
    assert.deepEqual(pathOf(name), path);
  });
}

test('labels tell what a path text does not [BLK-009]', () => {
  assert.equal(labelOf(['a', 0n, '0', 'x/y', '']), "a/0/'0'/'x/y'/''");
  assert.equal(labelOf([1n << 8191n]), String(1n << 8191n));
  assert.equal(labelOf([-1n << 8193n]), `-0x2${'0'.repeat(2048)}`); // of millions of digits, decimal would take seconds
  assert.deepEqual(['a', 5n, '5', '-5', '', 'a/b', '5a'].map(isPlain), [true, true, false, false, false, false, true]);
  assert.deepEqual([keysOf('7'), keysOf('07'), keysOf('a'), keysOf('-0')], [['7', 7n], ['07'], ['a'], ['-0']]);
});

test('illegal names [NAME-006]', () => {
  for (const name of ['a//b', '', '..', 'a/.', '__a', 'zarr.json', 'a b', 'é', 'a'.repeat(65001)]) assert.ok(!isPath(name), name);
  const clash = (...names) => assert.throws(() => checkNames(names), (error) => error.code === 'bad-manifest');
  clash('a', 'a');
  clash('a/b', 'a-b', 'a');
  clash('', 'a');
  checkNames(['a/b', 'a-b', 'a.b', 'ab', 'a0']);
  checkNames(['']);
});

test('what a terminal would obey is escaped [SEC-005]', () => {
  assert.equal(shown('a\u001b[2J\n\u202e'), 'a\\u001b[2J\\u000a\\u202e');
});

test('a name of many segments takes no quadratic time', () => {
  const long = 'a/'.repeat(32_000);
  const names = Array.from({ length: 20 }, (_, i) => `${long}${i}`);
  const start = process.cpuUsage();
  checkNames(names);
  assert.ok(process.cpuUsage(start).user < 4e6); // microseconds
});
