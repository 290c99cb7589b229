// Streams, children with channels, Unix sockets, workers, signals, timers, files and WebAssembly in Node.
'use strict';
const { once } = require('events');
const { fork, spawn, spawnSync, exec, execSync } = require('child_process');
const { Worker } = require('worker_threads');
const { pipeline } = require('stream/promises');
const { promisify } = require('util');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const readline = require('readline');
const timers = require('timers/promises');

const folder = fs.mkdtempSync('/tmp/node-');
const at = (name) => path.join(folder, name);

async function channels() {
  fs.writeFileSync(at('child.js'), `
    process.on('message', (m) => { if (m === 'end') process.exit(3); process.send({ got: m, pid: process.pid !== undefined }); });
    process.send('ready');`);
  const child = fork(at('child.js'));
  console.log('fork:', (await once(child, 'message'))[0]);
  child.send({ list: [1, 2, 3] });
  console.log('reply:', JSON.stringify((await once(child, 'message'))[0]));
  child.send('end');
  console.log('exit:', (await once(child, 'exit'))[0]);
  const many = await Promise.all([...Array(6).keys()].map(async (n) => {
    const c = spawn('sh', ['-c', `sleep 0.0${n}; exit ${n}`]);
    return (await once(c, 'close'))[0];
  }));
  console.log('children:', many.join(' '));
  const big = spawnSync('head', ['-c', '3000000', '/dev/zero'], { maxBuffer: 1e7 });
  console.log('big:', big.stdout.length, big.status);
  const slow = spawnSync('sleep', ['60'], { timeout: 100 });
  console.log('slow:', slow.signal, slow.error.code);
  console.log('missing:', spawnSync('/no/such').error.code, (await promisify(exec)('exit 7').catch((e) => e)).code);
}

async function sockets() {
  const server = net.createServer((socket) => socket.pipe(socket));
  server.listen(at('socket'));
  await once(server, 'listening');
  const lengths = await Promise.all([1, 1000, 100000, 1000000].map(async (n) => {
    const socket = net.connect(at('socket'));
    socket.end(Buffer.alloc(n, 'x'));
    let got = 0;
    for await (const chunk of socket) got += chunk.length;
    return got;
  }));
  console.log('echo:', lengths.join(' '));
  server.close();
  const refused = net.connect(at('none'));
  console.log('refused:', (await once(refused, 'error'))[0].code);
}

async function workers() {
  const shared = new SharedArrayBuffer(8);
  const cells = new Int32Array(shared);
  const code = `
    const { workerData, parentPort } = require('worker_threads');
    const cells = new Int32Array(workerData);
    Atomics.wait(cells, 0, 0);
    for (let i = 0; i < 10000; i++) Atomics.add(cells, 1, 1);
    parentPort.postMessage('done');`;
  const crew = [...Array(4)].map(() => new Worker(code, { eval: true, workerData: shared }));
  await Promise.all(crew.map((w) => once(w, 'online')));
  Atomics.store(cells, 0, 1);
  const done = crew.map((w) => once(w, 'exit'));
  const woken = setInterval(() => Atomics.notify(cells, 0), 5);
  await Promise.all(done);
  clearInterval(woken);
  console.log('atomics:', cells[1]);
  const stuck = new Worker('for (;;);', { eval: true });
  await once(stuck, 'online');
  console.log('terminated:', await stuck.terminate());
}

async function signals() {
  const caught = [];
  for (const name of ['SIGUSR2', 'SIGTERM', 'SIGHUP']) process.once(name, (s) => caught.push(s));
  for (const name of ['SIGUSR2', 'SIGTERM', 'SIGHUP']) process.kill(process.pid, name);
  while (caught.length < 3) await timers.setTimeout(5);
  console.log('signals:', caught.sort().join(' '));
  const child = spawn(process.execPath, ['-e', `process.on('SIGINT', () => process.exit(8)); console.log('up'); setInterval(() => {}, 1000)`]);
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  console.log('handled:', (await once(child, 'exit'))[0]);
}

async function files() {
  await Promise.all([...Array(50).keys()].map((n) => fs.promises.writeFile(at(`f${n}`), 'x'.repeat(n * 100))));
  const sizes = await Promise.all((await fs.promises.readdir(folder)).filter((n) => /^f\d/.test(n)).map(async (n) => (await fs.promises.stat(at(n))).size));
  console.log('files:', sizes.length, sizes.reduce((a, b) => a + b));
  const handle = await fs.promises.open(at('handle'), 'w+');
  await handle.write('hello world');
  await handle.truncate(5);
  console.log('handle:', (await handle.read(Buffer.alloc(10), 0, 10, 0)).bytesRead, (await handle.stat()).mode.toString(8));
  await handle.close();
  fs.writeFileSync(at('lines'), [...Array(1000).keys()].join('\n'));
  let sum = 0;
  for await (const line of readline.createInterface({ input: fs.createReadStream(at('lines')) })) sum += Number(line);
  console.log('lines:', sum);
  await pipeline(fs.createReadStream('/dev/urandom', { end: 999999 }), fs.createWriteStream(at('random')));
  console.log('random:', fs.statSync(at('random')).size);
  fs.cpSync(folder, at('../copied'), { recursive: true, filter: (n) => !n.includes('socket') });
  fs.rmSync(at('../copied'), { recursive: true });
  for (const [name, call] of [['ENOENT', () => fs.openSync(at('none'))], ['EEXIST', () => fs.mkdirSync(folder)], ['ENOTDIR', () => fs.readFileSync(at('f1/x'))], ['EISDIR', () => fs.readFileSync(folder)], ['ENOTEMPTY', () => fs.rmdirSync(folder)]]) {
    try { call(); console.log(name, 'did not fail'); } catch (e) { console.log('error:', e.code === name, e.code); }
  }
  console.log('os:', os.type(), os.hostname(), os.totalmem() > 1e8, os.freemem() > 1e6, os.cpus().length > 0, os.userInfo().username);
}

async function engine() {
  const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]);
  const { instance } = await WebAssembly.instantiate(wasm);
  console.log('wasm:', instance.exports.add(40, 2));
  const garbage = [];
  for (let i = 0; i < 300; i++) { garbage.push(Buffer.alloc(100000, i)); if (garbage.length > 50) garbage.shift(); }
  console.log('memory:', garbage.length, process.memoryUsage().rss > 1e7);
  const start = performance.now();
  await timers.setTimeout(30);
  console.log('timers:', performance.now() - start >= 29, process.hrtime.bigint() > 0n, process.uptime() > 0);
  console.log('execSync:', execSync('printf %s "$X"', { env: { ...process.env, X: 'from the environment' } }).toString());
}

(async () => {
  for (const part of [channels, sockets, workers, signals, files, engine]) await part();
  fs.rmSync(folder, { recursive: true });
})();
