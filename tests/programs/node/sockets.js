// WebSockets that are echoed, many at a time: `sockets.js ROLE PORT`, where ROLE is server, client or both.
"use strict";
const { WebSocket, WebSocketServer } = require("ws");
const { bytes, check, finish } = require("./pattern.js");

const SIZES = [0, 1, 20, 125, 126, 1_000, 5_000, 70_000];
const SOCKETS = 150;
const MESSAGES = 60;

function serve(port) {
  return new Promise((resolve) => {
    const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 500 }, resolve);
    server.on("connection", (socket) => {
      socket.on("message", (message, isBinary) => socket.send(message, { binary: isBinary }));
    });
  });
}

// Keeps a few messages on their way, and closes when all have come back.
function talk(port, seed) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
    const size = (number) => SIZES[(seed + number) % SIZES.length];
    let sent = 0;
    let received = 0;
    let total = 0;
    const send = () => socket.send(bytes(seed, sent, size(sent++)));
    socket.on("open", () => {
      for (let count = 0; count < 1 + (seed % 5); count++) send();
    });
    socket.on("message", (message) => {
      check(seed, received, message, size(received));
      total += message.length;
      if (++received === MESSAGES) return socket.close(1000);
      if (sent < MESSAGES) send();
    });
    socket.on("close", (code) => (received === MESSAGES ? resolve(total) : reject(new Error(`closed: ${code}`))));
    socket.on("error", reject);
  });
}

async function client(port) {
  const work = [];
  for (let seed = 0; seed < SOCKETS; seed++) work.push(talk(port, seed));
  const totals = await Promise.all(work);
  console.log(totals.reduce((left, right) => left + right), "bytes");
}

async function main([role, port]) {
  if (role !== "client") await serve(+port);
  if (role !== "server") await client(+port);
  finish(role);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
