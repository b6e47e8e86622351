// Sockets that travel between processes: `handles.js PORT`. The parent accepts and answers for a while, then hands every
// other connection to a child, which goes on with it; the clients live in a process of their own.
"use strict";
const { fork } = require("child_process");
const net = require("net");
const { bytes, check } = require("./pattern.js");

const CONNECTIONS = 30;
const SIZE = 5_000;
const ROUNDS = 20;

const echo = (socket) => socket.on("data", (data) => socket.write(data));

// One message at a time, so nothing is on its way when a connection moves.
function talk(port, seed) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1" });
    let position = 0;
    let parts = [];
    const send = () => socket.write(bytes(seed, position, SIZE));
    socket.on("connect", send);
    socket.on("data", (part) => {
      parts.push(part);
      const message = Buffer.concat(parts);
      if (message.length < SIZE) return;
      check(seed, position, message, SIZE);
      parts = [];
      position += SIZE;
      if (position === ROUNDS * SIZE) return resolve(socket.end());
      send();
    });
    socket.on("error", reject);
  });
}

async function clients(port) {
  const work = [];
  for (let seed = 0; seed < CONNECTIONS; seed++) work.push(talk(port, seed));
  await Promise.all(work);
  process.exit(0);
}

// Answers half of a connection's messages, then hands it over.
function begin(socket, number, child) {
  if (number % 2 === 0) return echo(socket);
  let seen = 0;
  const listen = (data) => {
    seen += data.length;
    if (seen < (SIZE * ROUNDS) / 2 || seen % SIZE !== 0) return socket.write(data);
    socket.off("data", listen);
    // pause() alone would read on into this process's buffer, as long as that has room.
    socket.pause();
    socket._handle.readStop();
    socket.write(data, () => child.send("yours", socket));
  };
  socket.on("data", listen);
}

function parent(port) {
  const child = fork(__filename, [port, "child"]);
  let number = 0;
  const server = net.createServer({ noDelay: true }, (socket) => begin(socket, number++, child));
  server.listen(+port, "127.0.0.1", 100, () => {
    fork(__filename, [port, "clients"]).on("exit", (code) => {
      console.log("clients ended with", code, "of", number, "connections");
      child.kill();
      process.exit(code);
    });
  });
}

const [port, role] = process.argv.slice(2);
if (role === "child") {
  process.on("message", (_, socket) => {
    echo(socket);
    socket.resume();
  });
} else if (role === "clients") {
  clients(+port);
} else {
  parent(port);
}
