#!/usr/bin/env bash
# pickleparser (npm) 0.2.1, which reads pickles in JavaScript: integers below -2^31, as a pickle of protocol 2 and later
# has them (LONG1), are read as other, positive numbers, without a word: the sign of their two's complement is passed over.
# Those of protocol 1, which are text, are read as they are. The numbers here are below 2^53, which JavaScript holds.
#
# Output seen:
#   protocol 1: -2147483648 -> -2147483648, -2147483649 -> -2147483649, -1099511627776 -> -1099511627776
#   protocol 4: -2147483648 -> -2147483648, -2147483649 -> 1097364144127, -1099511627776 -> 280375465082880
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund pickleparser@0.2.1
python3 - <<'PROGRAM'
import pickle

for protocol in (1, 4):
    with open(f"{protocol}.pkl", "wb") as file:
        pickle.dump([-(2**31), -(2**31) - 1, -(2**40)], file, protocol)
PROGRAM
cat >look.js <<'JAVASCRIPT'
import { readFileSync } from 'node:fs';
import { Parser } from 'pickleparser';

const written = [-(2 ** 31), -(2 ** 31) - 1, -(2 ** 40)];
const read = [1, 4].map((protocol) => new Parser().parse(readFileSync(`${protocol}.pkl`)));
for (const [place, protocol] of [1, 4].entries()) {
  console.log(`protocol ${protocol}: ${written.map((value, at) => `${value} -> ${read[place][at]}`).join(', ')}`);
}
const expected = [written, [-2147483648, 1097364144127, 280375465082880]];
process.exit(JSON.stringify(read) === JSON.stringify(expected) ? 0 : 1);
JAVASCRIPT
node look.js
