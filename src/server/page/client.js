'use strict';
// What the page asks of the server. Server-sent events are read from fetch, because EventSource cannot POST.
// Errors have a `kind`: 'unreachable' (no answer at all), 'key' (401), 'refused' (another status), 'lost' (an answer
// that broke off).
const client = (() => {
  const PATIENCE_MS = 10000;  // for answers that need no computing
  const api_key = () => document.getElementById('api-key').value;
  const headers = () => {
    const all = { 'Content-Type': 'application/json' };
    if (api_key()) all.Authorization = 'Bearer ' + api_key();
    return all;
  };
  const problem = (kind, text) => Object.assign(new Error(text), { kind });

  async function failure(response) {
    if (response.status === 401) {
      return problem('key', api_key() ? 'The server refuses this API key: correct it under Settings.'
        : 'This server wants an API key: enter it under Settings.');
    }
    let text = `${response.status} ${response.statusText}`;
    try {
      const body = await response.json();
      if (body.error && body.error.message) text = body.error.message;
    } catch (_) { /* the status line must do */ }
    return problem('refused', text);
  }

  async function ask(path, options) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers() });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw problem('unreachable', `The server at ${location.host} does not answer: it has stopped, or the network is down.`);
    }
    if (!response.ok) throw await failure(response);
    return response;
  }

  async function getJson(path) {
    return (await ask(path, { signal: AbortSignal.timeout(PATIENCE_MS) })).json();
  }

  async function sendJson(method, path, body, options) {
    const response = await ask(path, { method, body: JSON.stringify(body), ...options });
    return response.status === 204 ? null : response.json();
  }

  // What one server-sent event says: a chunk, '[DONE]' or null.
  function chunk_of(event) {
    const data = event.split('\n').filter(l => l.startsWith('data:')).map(l => l.slice(5).trimStart()).join('\n');
    if (!data) return null;
    if (data === '[DONE]') return data;
    const chunk = JSON.parse(data);
    if (chunk.error) throw problem('refused', chunk.error.message);
    return chunk;
  }

  async function next_piece(reader) {
    try {
      return await reader.read();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw problem('lost', 'the connection was lost before the answer ended');
    }
  }

  // Calls on_chunk with every chunk of the answer. Ends when the server says [DONE], throws when it does not.
  async function stream(body, signal, on_chunk) {
    const response = await ask('v1/chat/completions', {
      method: 'POST', signal,
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, dspark_trace: true }),
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = '', done_seen = false;
    for (;;) {
      const { value, done } = await next_piece(reader);
      if (done) break;
      buffer += value;
      let end;
      while ((end = buffer.indexOf('\n\n')) >= 0) {
        const chunk = chunk_of(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
        if (chunk === '[DONE]') done_seen = true;
        else if (chunk) on_chunk(chunk);
      }
    }
    if (!done_seen) throw problem('lost', 'the stream ended early');
  }

  // Prometheus text to {name: [{labels: {..}, value}]}.
  async function metrics() {
    const response = await ask('metrics', { signal: AbortSignal.timeout(PATIENCE_MS) });
    const out = {};
    for (const line of (await response.text()).split('\n')) {
      const m = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
      if (!m) continue;
      const labels = {};
      for (const l of (m[2] || '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[l[1]] = l[2];
      (out[m[1]] = out[m[1]] || []).push({ labels, value: Number(m[3]) });
    }
    if (!out['vllm:generation_tokens_total']) throw problem('refused', 'what came is no list of metrics');
    return out;
  }
  return { getJson, sendJson, stream, metrics };
})();
