// Timers, worker_threads, child_process, fs, zlib and crypto, with the same output on every run.
'use strict';
const { Worker } = require('worker_threads');
const { execFile, spawn, execFileSync } = require('child_process');
const { once } = require('events');
const { promisify } = require('util');
const { pipeline } = require('stream/promises');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const timers = require('timers/promises');
const zlib = require('zlib');

const digest = (data) => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);

async function timersPart() {
  const order = [];
  const add = (name) => () => order.push(name);
  const late = new Promise((resolve) => setTimeout(() => { order.push('late'); resolve(); }, 60));
  setTimeout(add('early'), 10);
  setImmediate(add('immediate'));
  process.nextTick(add('tick'));
  Promise.resolve().then(add('promise'));
  await late;
  console.log('timers:', order.filter((n) => n !== 'immediate').join(' '), order.includes('immediate'));
  let ticks = 0;
  for await (const _ of timers.setInterval(5)) if (++ticks === 4) break;
  console.log('interval:', ticks);
}

async function workersPart() {
  const code = `
    const { parentPort, workerData } = require('worker_threads');
    let sum = 0;
    for (let i = workerData.from; i < workerData.to; i++) sum += i;
    Atomics.add(new Int32Array(workerData.shared), 0, 1);
    parentPort.postMessage(sum);`;
  const shared = new SharedArrayBuffer(4);
  const sums = await Promise.all([0, 1, 2].map(async (n) => {
    const worker = new Worker(code, { eval: true, workerData: { from: n * 100000, to: (n + 1) * 100000, shared } });
    // Both are waited for from the start: they may come in one turn of the loop.
    const [[sum]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
    return sum;
  }));
  console.log('workers:', sums.join(' '), 'shared:', new Int32Array(shared)[0]);
}

async function childrenPart() {
  const { stdout } = await promisify(execFile)('sh', ['-c', 'echo child; exit 0']);
  console.log('execFile:', stdout.trim());
  const sort = spawn('sort', ['-n'], { stdio: ['pipe', 'pipe', 'inherit'] });
  sort.stdin.end('30\n4\n200\n');
  let out = '';
  for await (const chunk of sort.stdout) out += chunk;
  console.log('spawn:', out.trim().split('\n').join(' '));
  const sleeper = spawn('sleep', ['60']);
  sleeper.kill('SIGTERM');
  console.log('killed:', (await once(sleeper, 'exit')).join(' '));
  console.log('node in node:', execFileSync(process.execPath, ['-p', '6 * 7']).toString().trim());
}

async function filesPart() {
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'demo-'));
  const file = path.join(folder, 'a.txt');
  await fs.promises.writeFile(file, 'line\n'.repeat(10000));
  await pipeline(fs.createReadStream(file), zlib.createGzip(), fs.createWriteStream(`${file}.gz`));
  await pipeline(fs.createReadStream(`${file}.gz`), zlib.createGunzip(), fs.createWriteStream(`${file}.out`));
  console.log('files:', fs.statSync(file).size, fs.readFileSync(file).equals(fs.readFileSync(`${file}.out`)));
  fs.renameSync(`${file}.out`, path.join(folder, 'b.txt'));
  fs.symlinkSync('b.txt', path.join(folder, 'link'));
  console.log('folder:', fs.readdirSync(folder).sort().join(' '), fs.readlinkSync(path.join(folder, 'link')));
  try {
    fs.readFileSync(path.join(folder, 'none'));
  } catch (error) {
    console.log('missing:', error.code);
  }
  await fs.promises.rm(folder, { recursive: true });
  console.log('gone:', !fs.existsSync(folder));
}

async function zlibPart() {
  const data = Buffer.alloc(200000, 'nanovisor ');
  const packed = await Promise.all([zlib.gzip, zlib.deflateRaw, zlib.brotliCompress].map((f) => promisify(f)(data)));
  const same = zlib.gunzipSync(packed[0]).equals(data) && zlib.inflateRawSync(packed[1]).equals(data)
    && zlib.brotliDecompressSync(packed[2]).equals(data);
  console.log('zlib:', same, digest(packed[1]));
}

async function cryptoPart() {
  console.log('hash:', digest('nanovisor'));
  console.log('scrypt:', (await promisify(crypto.scrypt)('password', 'salt', 16)).toString('hex'));
  console.log('pbkdf2:', crypto.pbkdf2Sync('password', 'salt', 10000, 16, 'sha512').toString('hex'));
  const key = Buffer.alloc(32, 7), iv = Buffer.alloc(12, 9);
  const cipher = crypto.createCipheriv('aes-256-gcm', key, iv);
  console.log('gcm:', cipher.update('secret', 'utf8', 'hex') + cipher.final('hex'), cipher.getAuthTag().toString('hex'));
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
  const signature = crypto.sign(null, Buffer.from('text'), privateKey);
  console.log('ed25519:', crypto.verify(null, Buffer.from('text'), publicKey, signature), crypto.randomBytes(16).length);
}

(async () => {
  console.log('node', process.version.split('.')[0]);
  for (const part of [timersPart, workersPart, childrenPart, filesPart, zlibPart, cryptoPart]) await part();
  process.exitCode = 5;
})();
