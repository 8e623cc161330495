// Numbers for people. Every function takes what the server sends and returns text.

export function count(n) {
  return Math.round(n).toLocaleString('en');
}

export function bytes(n) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i++; }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

/** ms formats milliseconds with about three digits. */
export function ms(value) {
  if (value === 0) return '0';
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} µs`;
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  if (value < 10_000) return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`;
  return seconds(value / 1000);
}

export const ns = (value) => ms(value / 1e6);

export function seconds(s) {
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m} min ${Math.floor(s % 60)} s`;
  return `${Math.floor(m / 60)} h ${m % 60} min`;
}

export function percent(share) {
  if (!Number.isFinite(share)) return '–';
  const p = share * 100;
  return `${p >= 99.95 || p === 0 ? Math.round(p) : p.toFixed(p < 0.1 ? 2 : 1)} %`;
}

export function rate(value) {
  return value >= 100 ? count(value) : value.toFixed(value < 10 && value > 0 ? 1 : 0);
}

/** when is a moment in Unix nanoseconds, of today without the date. */
export function when(ns) {
  const date = new Date(ns / 1e6);
  const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { day: 'numeric', month: 'short', year: 'numeric' })}, ${time}`;
}
