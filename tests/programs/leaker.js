// Leaks sockets in CLOSE_WAIT on purpose and says exactly which: `consumed`, `unread` and `data` of leaker.c, and two
// of which Node reads the end, but to which functions of this file write: `greeted` before it and `replied` after.

'use strict';
const net = require('node:net');
const readline = require('node:readline');

const kept = [];
let arrived;

const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => arrived(socket));

function readToTheEndAndForget(socket, done) {
  socket.on('end', function toldEof() {
    kept.push(socket);
    done();
  });
  socket.resume();
}

// Writes at once, and never ends its side.
function greetAndForget(socket) {
  socket.write('hello');
  return new Promise((done) => readToTheEndAndForget(socket, done));
}

// Writes once the peer has ended its side, and then forgets to end its own.
function replyAndForget(socket, done) {
  socket.write('bye');
  kept.push(socket);
  done();
}

// A client that waits for an answer: it reads, and closes or only ends its side.
function visitAndRead(serve, leave) {
  return new Promise((resolve) => {
    const client = net.connect({ port: server.address().port, host: '127.0.0.1', allowHalfOpen: true });
    client.resume();
    arrived = async (socket) => {
      const ended = serve(socket);
      leave(client);
      await ended;
      resolve(socket);
    };
  });
}

const visitors = {
  greeted: () => visitAndRead(greetAndForget, (client) => client.once('data', () => client.destroy())),
  replied: () =>
    visitAndRead(
      (socket) =>
        new Promise((done) => {
          socket.on('end', () => replyAndForget(socket, done));
          socket.resume();
        }),
      (client) => kept.push(client.end()),
    ),
};

function visit(upload) {
  return new Promise((resolve) => {
    let accepted;
    let finished = false;
    const client = net.connect(server.address().port, '127.0.0.1', () => {
      client.end(Buffer.alloc(upload), () => client.destroy());
    });
    const both = () => accepted && finished && resolve(accepted);
    client.on('close', () => {
      finished = true;
      both();
    });
    arrived = (socket) => {
      accepted = socket;
      both();
    };
  });
}

async function leak(kind, count) {
  const after = process.hrtime.bigint();
  const sockets = [];
  for (let n = 0; n < count; n += 1) {
    const visitor = visitors[kind];
    const socket = await (visitor ? visitor() : visit(kind === 'data' ? 3200 : 0));
    const entry = {
      local: `${socket.localAddress}:${socket.localPort}`,
      remote: `${socket.remoteAddress}:${socket.remotePort}`,
      kind: { unread: 'eof_unread', data: 'data_unread' }[kind] || 'eof_consumed',
      holders: [{ pid: process.pid, fd: socket._handle.fd }],
    };
    if (kind === 'consumed') {
      await new Promise((done) => readToTheEndAndForget(socket, done));
    } else if (!visitor) {
      kept.push(socket);
    }
    sockets.push(entry);
  }
  return {
    pid: process.pid,
    listen: [`127.0.0.1:${server.address().port}`],
    after_ns: Number(after),
    before_ns: Number(process.hrtime.bigint()),
    sockets,
  };
}

server.listen(0, '127.0.0.1', async () => {
  const lines = readline.createInterface({ input: process.stdin });
  for await (const line of lines) {
    const [kind, count] = line.split(' ');
    process.stdout.write(`${JSON.stringify(await leak(kind, Number(count)))}\n`);
  }
  process.exit(0);
});
