// Requests to the server. All addresses are relative, so that the page also works behind a proxy with a prefix.

const keyName = 'omni.profileKey';

/** ServerError is an answer that is none: its message is the server's. */
export class ServerError extends Error {
  constructor(status, detail) {
    super(detail?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = detail?.code ?? '';
    this.param = detail?.param ?? null;
  }
}

export function profileKey(value) {
  if (value !== undefined) sessionStorage.setItem(keyName, value);
  return sessionStorage.getItem(keyName) ?? '';
}

const profileRoute = (path) => /^(start_profile|stop_profile|dump_profile|profile_status|profiles|profile)\b/.test(path);

/** request sends a request and returns the Response if its status is good. A 207 is good: the body says what failed. */
export async function request(path, { method = 'GET', body, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (profileRoute(path) && profileKey() !== '') headers.Authorization = `Bearer ${profileKey()}`;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Error('The server cannot be reached.');
  }
  if (!response.ok) {
    const detail = await response.json().catch(() => null);
    throw new ServerError(response.status, detail?.error);
  }
  return response;
}

export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

export const fileURL = (session, name) => `profiles/${encodeURIComponent(session)}/${encodeURIComponent(name)}`;

/** download saves a file. A link would not carry the key for profiles, so with one the file goes through memory. */
export async function download(event, session, name) {
  if (profileKey() === '') return;
  event.preventDefault();
  const blob = await (await request(fileURL(session, name))).blob();
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
