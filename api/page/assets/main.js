// The page: which view is shown, and whether the server is there.
import { h, show } from './dom.js';
import { json } from './net.js';
import { home } from './home.js';
import { session } from './session.js';
import { compare } from './compare.js';
import { seconds } from './format.js';

const main = document.getElementById('main');
let leave = null; // ends the view that is shown

const views = [
  [/^#\/profiles\/([^/]+)$/, session],
  [/^#\/compare\/([^/]+)\/([^/]+)$/, compare],
];

function route() {
  leave?.abort();
  leave = new AbortController();
  const hash = location.hash;
  show(main);
  for (const [pattern, view] of views) {
    const found = pattern.exec(hash);
    if (found) {
      view(main, leave.signal, ...found.slice(1).map(decodeURIComponent));
      main.focus({ preventScroll: true });
      scrollTo(0, 0);
      return;
    }
  }
  document.title = 'omni';
  home(main, leave.signal);
}

/** watch asks the server for its stages every second and tells whoever listens. */
async function watch() {
  const connection = document.getElementById('connection');
  for (;;) {
    if (!document.hidden) {
      try {
        const stages = await json('stages');
        document.getElementById('model').textContent = stages.model;
        const state = stages.draining ? 'draining' : `up ${seconds(stages.uptime_s)}`;
        show(connection, h('span', { class: `dot ${stages.draining ? 'warn' : 'good'}`, 'aria-hidden': 'true' }), state);
        document.dispatchEvent(new CustomEvent('omni:stages', { detail: stages }));
      } catch (e) {
        show(connection, h('span', { class: 'dot bad', 'aria-hidden': 'true' }), e.message);
        document.dispatchEvent(new CustomEvent('omni:lost', { detail: e }));
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

addEventListener('hashchange', () => { if (location.hash !== '#main') route(); });
route();
watch();
