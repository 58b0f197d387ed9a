// Reads slices with the package of js/ for tests: a request a line, {file, path, selection, options}, and the array that
// JavaScript gives; or with `verify` what is damaged.

import { createInterface } from 'node:readline';
import { CkptError, open } from '../js/dist/index.js';

for await (const line of createInterface({ input: process.stdin })) {
  const { file, options, ...request } = JSON.parse(line);
  const reply = await opened(file, options, request).catch((error) => {
    if (!(error instanceof CkptError)) throw error;
    return { code: error.code, message: error.message, place: error.place };
  });
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}

async function opened(file, options, { path, selection, verify }) {
  const checkpoint = await open(file, options);
  try {
    if (!verify) return await read(await checkpoint.tensor(path), selection);
    const damage = await (path === null ? checkpoint : await checkpoint.tensor(path)).verify();
    return damage.map(({ code, place }) => ({ code, ...place }));
  } finally {
    await checkpoint.close();
  }
}

async function read(tensor, selection) {
  const { dtype, shape, data } = await tensor.read(selection);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { dtype, shape, array: data.constructor.name, data: bytes.toString('base64') };
}
