// Loads a trace into Perfetto's trace processor and says what it holds, as one JSON object on standard output:
// perfetto.mjs ENGINE_FOLDER TRACE. The engine is built for a browser's worker: this script is that worker and its page.
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { pathToFileURL } from 'node:url';

const [folder, trace] = process.argv.slice(2);
const { EngineBase } = await import(pathToFileURL(path.join(folder, 'engine.mjs')));

// What the worker's side finds in a browser. Files come from the folder, and the build for 32 bits is the one that is there:
// the engine tries a small module to see whether 64 bits would work, which is refused.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
globalThis.location = { href: 'file:///' };
globalThis.XMLHttpRequest = class {
  open(method, name) {
    this.name = path.basename(name);
  }
  send() {
    this.response = fs.readFileSync(path.join(folder, this.name));
  }
};
WebAssembly.Module = new Proxy(WebAssembly.Module, {
  construct(target, [bytes]) {
    if (bytes.length < 100 && bytes[8] === 5) throw new Error('32 bits only'); // it has a memory and nothing else
    return new target(bytes);
  },
});
console.log = console.warn = () => {}; // what the engine has to say besides its answers
vm.runInThisContext(fs.readFileSync(path.join(folder, 'engine_bundle.node.js'), 'utf8'));
await new Promise((resolve) => setTimeout(resolve, 0)); // after all that the engine does when it has its module

const channel = new MessageChannel();
globalThis.onmessage({ data: channel.port1 });
class Engine extends EngineBase {
  mode = 'WASM';
  id = 'check';
  rpcSendRequestBytes(bytes) {
    channel.port2.postMessage(bytes);
  }
}
const engine = new Engine();
channel.port2.onmessage = ({ data }) => engine.onRpcResponseBytes(data);

const piece = Buffer.alloc(16 << 20);
const file = fs.openSync(trace);
for (let size; (size = fs.readSync(file, piece)) > 0; ) await engine.parse(new Uint8Array(piece.subarray(0, size)));
await engine.notifyEof();

async function rows(sql) {
  const result = await engine.query(sql);
  const list = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    list.push(result.columns().map((column) => (typeof row.get(column) === 'bigint' ? Number(row.get(column)) : row.get(column))));
  }
  return list;
}
process.stdout.write(
  JSON.stringify({
    faults: await rows("select name, value from stats where severity in ('error', 'data_loss') and value > 0"),
    slices: await rows('select name, count(*), sum(dur) from slice group by name'),
    flows: (await rows('select count(*) from flow'))[0][0],
    counters: (await rows('select count(*) from counter'))[0][0],
    processes: await rows('select pid, name from process where pid is not null order by pid'),
    arrows: await rows(
      `select p.name, q.name, count(*) from flow join slice a on slice_out = a.id join slice b on slice_in = b.id
       join thread_track t on a.track_id = t.id join thread using (utid) join process p using (upid)
       join thread_track u on b.track_id = u.id join thread v on u.utid = v.utid join process q on v.upid = q.upid
       where a.category = 'request' group by 1, 2 order by 1, 2`),
  }) + '\n',
  () => process.exit(),
);
