// A flame graph: a box per place in the call tree, as wide as the time in it, callers above what they call.
// Arrow keys walk through the tree, Enter zooms, Escape shows all again.
import { h, show, problem } from './dom.js';
import { json } from './net.js';
import { count, ns, percent } from './format.js';

const least = 0.0008; // share of the width below which a box is not drawn

function hue(node) {
  let hash = 0;
  for (const c of node.name) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  if (!node.category || node.category.endsWith('user_annotation')) return 205 + (hash % 30);
  if (node.category === 'kernel' || node.category.startsWith('gpu_')) return 120 + (hash % 40);
  return 18 + (hash % 36);
}

function link(node, parent, depth) {
  node.parent = parent;
  node.depth = depth;
  node.children ??= [];
  for (const child of node.children) link(child, node, depth + 1);
  return node;
}

function draw(root) {
  const host = h('div', { class: 'flame', role: 'tree', 'aria-label': 'flame graph; arrow keys walk, Enter zooms, Escape shows all' });
  const detail = h('p', { class: 'flame-detail', 'aria-live': 'polite' });
  const found = h('span', { class: 'note' });
  let top = root, focus = root, search = '';
  const boxes = new Map();

  const describe = (n) => `${n.name} · ${ns(n.total_ns)}, ${percent(n.total_ns / Math.max(1, root.total_ns))} of all${n.calls ? ` · self ${ns(n.self_ns ?? 0)} · ${count(n.calls)} call${n.calls === 1 ? '' : 's'}` : ''}`;
  const matches = (n) => search !== '' && n.name.toLowerCase().includes(search);

  function place(node, left, width, row) {
    if (width < least) return row;
    const box = h('div', {
      class: `box${node.category ? '' : ' root'}${matches(node) ? ' found' : ''}${row < top.depth ? ' above' : ''}`, role: 'treeitem', tabindex: node === focus ? '0' : '-1',
      'aria-level': String(node.depth + 1), 'aria-label': describe(node),
      style: { left: `${100 * left}%`, width: `${100 * width}%`, top: `calc(var(--row) * ${row})`, '--hue': String(hue(node)) },
      onclick: () => zoom(node), onpointerenter: () => { detail.textContent = describe(node); }, onfocus: () => { focus = node; detail.textContent = describe(node); },
    }, width > 0.02 ? node.name : '');
    boxes.set(node, box);
    host.append(box);
    let deepest = row, x = left;
    for (const child of node.children) {
      const w = (width * child.total_ns) / Math.max(1, node.total_ns);
      deepest = Math.max(deepest, place(child, x, w, row + 1));
      x += w;
    }
    return deepest;
  }

  function render(keepFocus) {
    boxes.clear();
    show(host);
    const chain = [];
    for (let n = top.parent; n; n = n.parent) chain.unshift(n);
    for (const n of chain) {
      const box = h('div', { class: 'box above', role: 'treeitem', tabindex: '-1', 'aria-level': String(n.depth + 1), 'aria-label': describe(n), style: { left: '0', width: '100%', top: `calc(var(--row) * ${n.depth})`, '--hue': String(hue(n)) }, onclick: () => zoom(n), onpointerenter: () => { detail.textContent = describe(n); } }, n.name);
      boxes.set(n, box);
      host.append(box);
    }
    if (!inside(focus)) focus = top;
    const deepest = place(top, 0, 1, top.depth);
    host.style.height = `calc(var(--row) * ${deepest + 1})`;
    if (keepFocus) boxes.get(focus)?.focus();
  }

  function inside(node) {
    for (let n = node; n; n = n.parent) if (n === top) return true;
    return false;
  }

  function zoom(node) {
    top = focus = node;
    render(true);
  }

  host.addEventListener('keydown', (e) => {
    const siblings = focus.parent?.children ?? [focus];
    const at = siblings.indexOf(focus);
    const drawn = (n) => n && boxes.has(n) && n;
    const to = { ArrowDown: () => drawn(focus.children[0]), ArrowUp: () => drawn(focus.parent), ArrowLeft: () => drawn(siblings[at - 1]), ArrowRight: () => drawn(siblings[at + 1]), Home: () => top }[e.key];
    if (to) {
      const next = to();
      if (next) { boxes.get(focus).tabIndex = -1; boxes.get(next).tabIndex = 0; boxes.get(next).focus(); }
    } else if (e.key === 'Enter' || e.key === ' ') zoom(focus);
    else if (e.key === 'Escape') zoom(root);
    else return;
    e.preventDefault();
  });

  const field = h('input', {
    type: 'search', placeholder: 'search names', 'aria-label': 'search names in the flame graph',
    oninput: (e) => {
      search = e.target.value.toLowerCase();
      let time = 0;
      const sum = (n) => { if (matches(n)) time += n.total_ns; else n.children.forEach(sum); };
      sum(root);
      found.textContent = search === '' ? '' : `${percent(time / Math.max(1, root.total_ns))} of all`;
      render(false);
    },
  });
  render(false);
  return { host, detail, field, found, reset: () => zoom(root) };
}

/** flame loads the graph when it is asked for: a large session takes a while. */
export function flame(id, stages) {
  const host = h('div', { class: 'flame-host' }); // it has a height from the start, so that what is below moves little
  const pick = h('select', { 'aria-label': 'stages of the flame graph' }, h('option', { value: '' }, 'all stages'),
    [...new Map(stages.map((s) => [s.stage, s])).values()].map((s) => h('option', { value: String(s.stage) }, s.name ? `${s.worker} ${s.name}` : s.worker)));
  const load = async () => {
    show(host, h('p', { class: 'note', role: 'status' }, 'Loading …'));
    try {
      const query = pick.value === '' ? '' : `?stage=${pick.value}`;
      const root = link(await json(`profiles/${encodeURIComponent(id)}/flame${query}`), null, 0);
      const graph = draw(root);
      show(host, h('div', { class: 'tools' }, pick, graph.field, h('button', { class: 'quiet', onclick: graph.reset }, 'Show all'), graph.found), h('div', { class: 'flame-scroll' }, graph.host), graph.detail);
    } catch (e) {
      show(host, h('div', { class: 'tools' }, pick), problem(e));
    }
  };
  pick.addEventListener('change', load);
  new IntersectionObserver((entries, self) => {
    if (!entries.some((e) => e.isIntersecting)) return;
    self.disconnect();
    load();
  }, { rootMargin: '200px' }).observe(host);
  return host;
}
