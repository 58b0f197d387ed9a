// The package `ckptfmt` of js/, in Node, as an implementation for the conformance suite: JSON lines on standard input and
// output.

import { createInterface } from 'node:readline';

const [{ open }, { answering, json }] = await Promise.all([import('../../../js/dist/index.js'), import('./protocol.js')])
  .catch((error) => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    process.stderr.write(`${error.message}\nThe reader in JavaScript has not been built: run \`make js\`.\n`);
    process.exit(1);
  });
const answer = answering('ckptfmt-javascript', (file, base) => open(file, { base }));

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.op === 'bye') break;
  process.stdout.write(`${json(await answer(request))}\n`);
}
