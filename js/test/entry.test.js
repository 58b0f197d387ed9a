// The row of a path itself, and the records of how a checkpoint came to be.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Dict, open } from '../dist/index.js';

const vector = (name) => open(fileURLToPath(new URL(`../../conformance/vectors/${name}/input.ckpt`, import.meta.url)));

test('the root has a row, without what is in it', async () => {
  const checkpoint = await vector('golden-1-1-0-paged');
  const root = await checkpoint.entry([]);
  assert.equal(root.kind, 'dict');
  assert.deepEqual(root.path, []);
  const rows = await checkpoint.children([]);
  assert.equal(root.count, rows.length);
  for (const row of rows) assert.deepEqual(await checkpoint.entry(row.path), row);
  await assert.rejects(checkpoint.entry(['no such key']), (error) => error.code === 'no-such-path');
  assert.equal(checkpoint.provenance, null);
  await checkpoint.close();
});

test('a tree that is one leaf has a row, too', async () => {
  const checkpoint = await vector('codec-raw');
  const [row] = await checkpoint.children([]);
  assert.equal((await checkpoint.entry(row.path)).tensor, row.tensor);
  await checkpoint.close();
});

test('records of a migration are values [MIG-017]', async () => {
  const checkpoint = await vector('migrate-provenance');
  const [record] = checkpoint.provenance;
  assert.ok(record instanceof Dict);
  assert.equal(typeof record.get('operation'), 'string');
  await checkpoint.close();
});
