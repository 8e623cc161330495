// Elements without a framework: h('td', {class: 'num'}, 'text', child, ...).

const svgNames = new Set(['svg', 'g', 'rect', 'text', 'title', 'path', 'line']);

/** h makes an element. Properties that begin with "on" are listeners, style is an object; null and false are left out. */
export function h(name, props = {}, ...children) {
  const element = svgNames.has(name) ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** show replaces what an element holds. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
}

/** table makes a table with a caption for those who do not see it. */
export function table(caption, heads, rows, props = {}) {
  const cell = (name) => (c) => (c instanceof Node && (c.localName === 'td' || c.localName === 'th') ? c : h(name, name === 'th' ? { scope: 'col' } : {}, c));
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', props, h('caption', { class: 'unseen' }, caption),
      h('thead', {}, h('tr', {}, heads.map(cell('th')))),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map(cell('td')))))));
}

/** num is a cell or head of numbers. */
export const num = (...text) => h('td', { class: 'num' }, ...text);
export const numHead = (text, title) => h('th', { class: 'num', scope: 'col', title: title ?? null }, text);

/** pill is a state with its colour. */
export function pill(state) {
  const kinds = { ready: 'good', done: 'good', recording: 'live', armed: 'live', writing: 'live', loading: 'live', failed: 'bad', down: 'bad' };
  return h('span', { class: `pill ${kinds[state] ?? ''}` }, state);
}

/** problem shows an error where it happened. */
export function problem(error) {
  return h('p', { class: 'problem', role: 'alert' }, error?.message ?? String(error));
}
