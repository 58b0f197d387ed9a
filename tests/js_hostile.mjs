// What hostile checkpoints do to the package of js/, for tests/attacks/attack.py. Each line of stdin is JSON: actions, and
// the path that they are done to. A line for each says the code, bytes of memory that it took at most, and seconds of the
// processor; one more whether this process is of no more use: what it keeps would hide what the next attack takes.

import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { CkptError, open } from '../js/dist/index.js';

const LIMIT = { maxDecodedBytes: 64 * 2 ** 20 };
const KEPT = 16 * 2 ** 20; // bytes at most, beyond those of the libraries

async function look(place) {
  const checkpoint = await open(place, LIMIT);
  try {
    for await (const tensor of checkpoint.tensors()) String(tensor);
    for (const entry of await checkpoint.children([], { stop: 100 })) {
      if (entry.count) await checkpoint.children(entry.path, { stop: 100 });
    }
  } finally {
    await checkpoint.close();
  }
}

async function load(place) {
  const checkpoint = await open(place, LIMIT);
  const all = [];
  try {
    await checkpoint.tree();
    for await (const tensor of checkpoint.tensors()) all.push(await tensor.readRaw());
  } finally {
    await checkpoint.close();
  }
}

async function verify(place) {
  const checkpoint = await open(place, LIMIT);
  try {
    const [first] = await checkpoint.verify();
    if (first !== undefined) throw first;
  } finally {
    await checkpoint.close();
  }
}

function code(error) {
  if (!(error instanceof CkptError)) return `${error?.name}: ${error?.message}`;
  return error.message.length < 100_000 ? error.code : `a message of ${error.message.length} characters`;
}

function status(name) {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
}

// the libraries, whose memory is not what is measured
for (const place of process.argv.slice(2)) await verify(place);
globalThis.gc();
const first = status('VmRSS');
for await (const line of createInterface({ input: process.stdin })) {
  const [actions, path] = JSON.parse(line);
  for (const action of [look, load, verify].filter(({ name }) => actions.includes(name))) {
    globalThis.gc();
    const before = status('VmRSS');
    writeFileSync('/proc/self/clear_refs', '5'); // the peak begins anew
    const start = process.cpuUsage();
    const ended = await action(path).then(() => 'opened', code);
    const { user, system } = process.cpuUsage(start);
    console.log(JSON.stringify([ended, Math.max(0, status('VmHWM') - before), (user + system) / 1e6]));
  }
  globalThis.gc();
  console.log(status('VmRSS') > first + KEPT);
}
