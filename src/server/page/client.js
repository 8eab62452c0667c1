'use strict';
// What the page asks of the server. Server-sent events are read from fetch, because EventSource cannot POST.
const client = (() => {
  const headers = () => {
    const key = document.getElementById('api-key').value;
    return key ? { 'Content-Type': 'application/json', Authorization: 'Bearer ' + key } : { 'Content-Type': 'application/json' };
  };

  async function failure(response) {
    let text = `${response.status} ${response.statusText}`;
    try {
      const body = await response.json();
      if (body.error && body.error.message) text = body.error.message;
    } catch (_) { /* the status line must do */ }
    return new Error(text);
  }

  async function getJson(path) {
    const response = await fetch(path, { headers: headers() });
    if (!response.ok) throw await failure(response);
    return response.json();
  }

  async function sendJson(method, path, body) {
    const response = await fetch(path, { method, headers: headers(), body: JSON.stringify(body) });
    if (!response.ok) throw await failure(response);
    return response.status === 204 ? null : response.json();
  }

  // Calls on_chunk with every chunk of the answer. Ends when the server says [DONE], throws when it does not.
  async function stream(body, signal, on_chunk) {
    const response = await fetch('v1/chat/completions', {
      method: 'POST', headers: headers(), signal,
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, dspark_trace: true }),
    });
    if (!response.ok) throw await failure(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = '', done_seen = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      buffer += value;
      let end;
      while ((end = buffer.indexOf('\n\n')) >= 0) {
        const event = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        const data = event.split('\n').filter(l => l.startsWith('data:')).map(l => l.slice(5).trimStart()).join('\n');
        if (!data) continue;
        if (data === '[DONE]') { done_seen = true; continue; }
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        on_chunk(chunk);
      }
    }
    if (!done_seen) throw new Error('the stream ended early');
  }

  // Prometheus text to {name: [{labels: {..}, value}]}.
  async function metrics() {
    const response = await fetch('metrics', { headers: headers() });
    if (!response.ok) throw await failure(response);
    const out = {};
    for (const line of (await response.text()).split('\n')) {
      const m = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
      if (!m) continue;
      const labels = {};
      for (const l of (m[2] || '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[l[1]] = l[2];
      (out[m[1]] = out[m[1]] || []).push({ labels, value: Number(m[3]) });
    }
    return out;
  }
  return { getJson, sendJson, stream, metrics };
})();
