// An initialised Node: a warm handler, timers, streams, worker threads, child processes.
const fs = require('fs'), crypto = require('crypto'), zlib = require('zlib'), path = require('path');
const { Worker } = require('worker_threads');
const { execFileSync, spawn } = require('child_process');

const routes = {};
for (let i = 0; i < 5000; i++) routes['/item/' + i] = { id: i, name: 'item ' + i };
const handle = (url) => JSON.stringify({ url, found: routes[url] || null, sum: Object.keys(routes).length });
for (let i = 0; i < 1000; i++) handle('/item/' + (i % 5000));
const worker = new Worker(`const { parentPort } = require('worker_threads');
  parentPort.on('message', (n) => parentPort.postMessage(n * 2));`, { eval: true });
let ticks = 0;
const interval = setInterval(() => { ticks++; }, 5);
const buffer = Buffer.alloc(4 << 20, 7);

worker.once('online', () => setTimeout(() => {
  console.log('--- ready');
  try { fs.writeFileSync('/proc/nanovisor/checkpoint', 'ready', { flag: 'r+' }); } catch (e) { if (e.code !== 'ENOENT') throw e; }
  console.log(handle('/item/777'), handle('/nothing'));
  console.log('buffer', buffer[0], buffer[buffer.length - 1], buffer.length);
  worker.once('message', (n) => {
    console.log('worker', n);
    worker.terminate().then(() => {
      const before = ticks;
      setTimeout(() => {
        console.log('interval', ticks > before);
        clearInterval(interval);
        fs.promises.writeFile('/tmp/out', 'written').then(() => fs.promises.readFile('/tmp/out', 'utf8')).then((text) => {
          console.log('file', text, path.basename(__dirname || '/x'));
          console.log('gzip', zlib.gunzipSync(zlib.gzipSync('round trip')).toString(), crypto.randomBytes(8).length);
          console.log('hash', crypto.createHash('sha256').update('x').digest('hex').slice(0, 16));
          console.log('exec', execFileSync('/bin/echo', ['sync']).toString().trim());
          const child = spawn('/bin/cat');
          child.stdout.on('data', (d) => console.log('child', d.toString()));
          child.on('close', (code) => console.log('closed', code));
          child.stdin.end('streamed');
        });
      }, 50);
    });
  });
  worker.postMessage(21);
}, 30));
