// The list of sessions in the server's folder.
import { h, show, pill, problem, table, num, numHead } from './dom.js';
import { json } from './net.js';
import { bytes, when } from './format.js';

/** erase asks, deletes a session and returns whether it is gone. */
export async function erase(profile) {
  if (!confirm(`Delete session ${profile.name} (${when(profile.started_ns)}), ${bytes(profile.bytes)}?`)) return false;
  await json(`profiles/${encodeURIComponent(profile.id)}`, { method: 'DELETE' });
  return true;
}

export function sessions(host, signal) {
  const chosen = []; // ids to compare, the first is the one before
  let known = '', available = true;

  function draw(profiles) {
    const button = h('button', { disabled: true, onclick: () => { location.hash = `#/compare/${chosen.map(encodeURIComponent).join('/')}`; } }, 'Compare two');
    const settle = () => {
      button.disabled = chosen.length !== 2;
      button.title = chosen.length === 2 ? '' : 'tick two sessions';
      for (const box of host.querySelectorAll('input[type=checkbox]')) box.checked = chosen.includes(box.value);
    };
    const fault = h('div');
    const row = (p) => [
      h('td', {}, h('input', {
        type: 'checkbox', value: p.id, 'aria-label': `compare ${p.name}`,
        onchange: (e) => {
          const at = chosen.indexOf(p.id);
          if (e.target.checked && at < 0) chosen.push(p.id);
          if (!e.target.checked && at >= 0) chosen.splice(at, 1);
          if (chosen.length > 2) chosen.shift();
          chosen.sort((a, b) => profiles.findIndex((x) => x.id === b) - profiles.findIndex((x) => x.id === a));
          settle();
        },
      })),
      h('td', {}, h('a', { href: `#/profiles/${encodeURIComponent(p.id)}` }, p.name)),
      when(p.started_ns), h('td', {}, pill(p.state)), h('td', { class: 'names', title: p.workers.join(', ') }, p.workers.join(', ') || '–'), num(bytes(p.bytes)),
      h('td', { class: 'num' }, h('button', {
        class: 'quiet', 'aria-label': `delete ${p.name}`, disabled: !['done', 'failed'].includes(p.state),
        onclick: async () => {
          try { if (await erase(p)) refresh(true); } catch (e) { show(fault, problem(e)); }
        },
      }, 'Delete')),
    ];
    show(host,
      h('div', { class: 'head' }, h('h2', { id: 'profiles-title' }, 'Profiles'), profiles.length > 1 && button), fault,
      profiles.length === 0 ? h('p', { class: 'empty' }, 'No profiles yet. Start one above, send a request, stop it, and it appears here.')
        : table('Profile sessions', [h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'compare')), 'session', 'started', 'state', 'workers', numHead('size'), h('th', {}, h('span', { class: 'unseen' }, 'delete'))], profiles.map(row)));
    settle();
  }

  async function refresh(now) {
    if (signal.aborted || !available || (document.hidden && !now)) return;
    try {
      const { profiles } = await json('profiles', { signal });
      const text = JSON.stringify(profiles);
      if (text !== known) draw(profiles);
      known = text;
    } catch (e) {
      if (e.name === 'AbortError') return;
      known = '';
      show(host, e.status !== 404 && e.status !== 401 && [h('h2', { id: 'profiles-title' }, 'Profiles'), problem(e)]);
    }
  }

  host.addEventListener('refresh', () => refresh(true));
  document.addEventListener('omni:stages', ({ detail }) => {
    const first = known === '' && detail.profiler;
    available = detail.profiler;
    if (first) refresh(true);
  }, { signal });
  const timer = setInterval(refresh, 3000);
  signal.addEventListener('abort', () => clearInterval(timer));
}
