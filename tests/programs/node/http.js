// An HTTP server and clients whose connections stay open: `http.js ROLE PORT`, where ROLE is server, client, both, or
// cluster (a server of four processes, to which the first one passes connections in turn).
"use strict";
const cluster = require("cluster");
const http = require("http");
const { bytes, check, finish } = require("./pattern.js");

const SIZES = [0, 1, 300, 20_000, 400_000];

function answer(request, response) {
  if (request.url === "/stream") {
    // As fast as the client takes it: several megabytes in pieces.
    let position = 0;
    const more = () => {
      while (position < 4_000_000) {
        const piece = bytes(1, position, 50_000);
        position += piece.length;
        if (!response.write(piece)) return response.once("drain", more);
      }
      response.end();
    };
    return more();
  }
  request.pipe(response);
}

function serve(port) {
  return new Promise((resolve) => http.createServer(answer).listen(port, "127.0.0.1", 500, resolve));
}

function request(agent, port, path, body) {
  return new Promise((resolve, reject) => {
    const options = { agent, port, host: "127.0.0.1", path, method: body ? "POST" : "GET" };
    const sent = http.request(options, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve(Buffer.concat(parts)));
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

async function talk(agent, port, seed) {
  let total = 0;
  for (let round = 0; round < 20; round++) {
    const size = SIZES[(seed + round) % SIZES.length];
    const body = await request(agent, port, "/echo", bytes(seed, 0, size));
    check(seed, 0, body, size);
    total += size;
  }
  return total;
}

async function stream(agent, port) {
  const body = await request(agent, port, "/stream");
  check(1, 0, body, 4_000_000);
  return body.length;
}

async function client(port) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 25 });
  const work = [];
  for (let seed = 0; seed < 25; seed++) work.push(talk(agent, port, seed));
  for (let count = 0; count < 4; count++) work.push(stream(agent, port));
  const totals = await Promise.all(work);
  agent.destroy();
  console.log(totals.reduce((left, right) => left + right), "bytes");
}

function serveInProcesses(port) {
  if (cluster.isPrimary) {
    for (let count = 0; count < 4; count++) cluster.fork();
    process.on("SIGTERM", () => cluster.disconnect(() => process.exit(0)));
  } else {
    serve(port);
  }
}

async function main([role, port]) {
  if (role === "cluster") return serveInProcesses(+port);
  if (role !== "client") await serve(+port);
  if (role !== "server") await client(+port);
  finish(role);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
