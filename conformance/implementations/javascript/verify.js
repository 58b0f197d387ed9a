// Whole verification [BLK-007]: every block, every chunk, every part manifest, every frame (section 9).

import { Chunk, DIGESTS } from './chunk.js';
import { Fault, Unsupported, need } from './faults.js';
import { DTYPES, checkFingerprint } from './manifest.js';
import { hasPlainKeys, nameOf } from './pages.js';
import { product } from './reader.js';

/** All damage of an open checkpoint, as Faults; throws Unsupported if this reader cannot tell. */
export function verify(checkpoint) {
  const { storage, parts, tensors } = checkpoint;
  if (!Object.hasOwn(DIGESTS, parts.digest)) throw new Unsupported(`digest:${parts.digest}`);
  const damage = [];
  const sound = parts.parts.map((_, number) => collect(damage, () => parts.load(number)));
  const isPaged = checkpoint.isPaged && verifyPages(checkpoint, sound, damage);
  const there = checkpoint.isPaged ? sound.flatMap((good, page) => (good ? tensors.page(page).tensors : [])) : tensors;
  for (const tensor of there.filter(({ chunkCount }) => chunkCount > 0)) {
    for (const at of product(tensor.chunkCounts.map((count) => [...Array(count).keys()]))) {
      verifyChunk(checkpoint, tensor, at, damage);
    }
  }
  const check = (bytes, wanted, name) => need(DIGESTS[parts.digest](bytes).equals(wanted), 'FRM-004',
    `${name} has changed outside its chunks`, 'frame-digest');
  const { layout, offset, length, size, frame } = storage.record;
  collect(damage, () => {
    if (layout === 'packed') check(Buffer.alloc(0), frame, 'COMMIT'); // [FRM-003]
    else if (layout === 'loose') check(nodeDocuments(storage, tensors), frame, 'a node document'); // [FRM-002]
    else if (!checkpoint.isPaged || isPaged) { // [FRM-001]; else nobody knows where the chunks are
      const end = storage.size('') - size;
      const { pages } = storage;
      const skipped = pages ? [[pages.offset, pages.starts.at(-1) - pages.offset]] : [];
      check(outsideChunks(storage, parts, sound.keys(), end, [[offset, length], ...skipped]), frame, 'the file');
    }
  });
  for (const [number, part] of layout === 'packed' ? parts.parts.entries() : []) {
    collect(damage, () => {
      const [name, whole] = [part.get('object'), Number(part.get('size'))];
      need(storage.size(name) === whole, 'LAY-004', `${name} has not the size of its part`, 'bad-extent');
      if (sound[number]) check(outsideChunks(storage, parts, [number], whole, [], name), part.get('frame'), name);
    });
  }
  return damage;
}

const extentsOf = (parts, number) => [...parts.load(number).values()].map(({ offset, length }) => [offset, length]);

/** Every page of the tree, and what shows only when all pages are there [PAGE-009]; whether the chunks are known. */
function verifyPages(checkpoint, sound, damage) {
  const { tensors, parts, manifest } = checkpoint;
  const { pages } = tensors;
  const known = sound.every(Boolean);
  let whole = known;
  for (let number = sound.length; number < pages.count; number++) {
    whole = collect(damage, () => pages.bytes(number)) && whole;
  }
  if (!whole) return known;
  collect(damage, () => {
    const plain = hasPlainKeys(checkpoint.tree);
    for (const [tensor, path] of checkpoint.paths) {
      need(nameOf(path) === tensor.name, 'PAGE-005', `the tensor at ${path.join('/')} is named ${tensor.name}`);
    }
    need(plain === manifest.get('plain_keys'), 'PAGE-008', '`plain_keys` is not as the keys are');
    checkFingerprint(manifest.get('schema'), [...sound.keys()].flatMap((page) => tensors.page(page).tensors));
  });
  return collect(damage, () => {
    const extents = [...sound.keys()].flatMap((page) => extentsOf(parts, page)).sort(([one], [two]) => one - two);
    const apart = extents.every(([start], i) => i === 0 || extents[i - 1][0] + extents[i - 1][1] <= start);
    need(apart, 'CHK-005', 'two chunks overlap', 'bad-extent');
  });
}

/** Run an action, and add the fault that it meets to `damage`; whether it met none. */
function collect(damage, action) {
  try {
    action();
    return true;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    damage.push(error);
    return false;
  }
}

function verifyChunk(checkpoint, tensor, at, damage) {
  const { storage, parts } = checkpoint;
  let chunk;
  if (!collect([], () => { chunk = new Chunk(storage, parts, tensor, at, true); })) return; // its part is damaged
  let sound = true;
  for (let block = 0; block < chunk.blocks; block++) {
    sound = collect(damage, () => chunk.block(block)) && sound;
    if (!sound && damage.at(-1).code !== 'block-digest') return; // the object is missing, short or behind a link
  }
  if (chunk.extent.object === null && storage.size(chunk.object) > chunk.extent.length) {
    damage.push(chunk.fault('bad-extent', `${chunk.object} is longer than its chunk [LAY-003]`));
  } else if (sound) {
    collect(damage, () => checkpoint.read(tensor, regionOf(tensor, at))); // decodes it, and checks bools
  }
}

/** The elements of a tensor that a chunk holds, as slices. */
function regionOf(tensor, at) {
  return at.map((number, axis) => {
    const side = tensor.grid[axis] * (axis === at.length - 1 ? DTYPES.get(tensor.dtype).packed : 1);
    return [number * side, Math.min((number + 1) * side, tensor.shape[axis]), 1];
  });
}

/** The bytes of an object but for chunks of these parts and what is skipped besides, as [offset, length]. */
function outsideChunks(storage, parts, numbers, size, skipped, name = '') {
  const extents = [...numbers].flatMap((number) => extentsOf(parts, number));
  const holes = [...extents, ...skipped, [size, 0]].sort(([one], [two]) => one - two);
  let position = 0;
  return Buffer.concat(holes.map(([offset, length]) => {
    const bytes = storage.read(name, position, offset - position);
    position = offset + length;
    return bytes;
  }));
}

/** The documents of arrays, the groups above them and the root, by path [ZARR-001]; one that is gone is empty. */
function nodeDocuments(storage, tensors) {
  const names = new Set(['']);
  for (const { name } of tensors) {
    for (let at = name.length; at > 0; at = name.lastIndexOf('/', at - 1)) names.add(name.slice(0, at));
  }
  const paths = [...names].map((name) => `tensors/${name && `${name}/`}zarr.json`).sort();
  return Buffer.concat(paths.map((path) => {
    try {
      return storage.read(path, 0, Infinity);
    } catch (error) {
      if (error.code !== 'missing-object') throw error;
      return Buffer.alloc(0);
    }
  }));
}
