// The bytes that streams carry: each is a function of the stream and of its position.
"use strict";

function bytes(seed, position, count) {
  const buffer = Buffer.alloc(count);
  for (let index = 0; index < count; index++) {
    buffer[index] = Math.imul(position + index + seed * 7919, 0x9e3779b1) >>> 24;
  }
  return buffer;
}

function check(seed, position, buffer, count) {
  if (buffer.length !== count) throw new Error(`stream ${seed}: ${buffer.length} bytes instead of ${count}`);
  const expected = bytes(seed, position, count);
  if (buffer.equals(expected)) return;
  const first = buffer.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`stream ${seed} is wrong at ${position + first}`);
}

// Ends the process when its own server would keep it alive.
function finish(role) {
  if (role === "both") process.exit(0);
}

module.exports = { bytes, check, finish };
