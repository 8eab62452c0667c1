'use strict';
// One answer: streamed into a node, counted, and told in a line.
const answers = (() => {
  // What has come of an answer; stays when it breaks off.
  const begin = () => ({ text: '', usage: null, n_tokens: 0, first_n: 0, began: performance.now(), first_at: 0, last_at: 0 });

  // Adds what a chunk brings; returns {text, n}: n is 1 where the tokens are not told.
  function add_chunk(chunk, body) {
    const choice = chunk.choices && chunk.choices[0];
    const delta = (choice && choice.delta) || {};
    const text = (delta.reasoning_content || '') + (delta.content || '');
    const traced = chunk.dspark && chunk.dspark.tokens;
    if (traced && traced.map(t => t.text).join('') === text) {
      for (const token of traced) if (token.text) tokens.append(body, token);
    } else if (text) {
      body.append(text);
    }
    return { text, n: traced ? traced.length : 1 };
  }

  // To be called before `log` gets more: keeps the end in sight, but leaves alone who reads further up. Once a frame:
  // each look at the height makes the browser lay out the text.
  function follow(log) {
    let is_asked = false;
    return () => {
      if (is_asked) return;
      is_asked = true;
      const place = log.scrollTop;
      const is_at_end = log.scrollHeight - place - log.clientHeight < 40;
      requestAnimationFrame(() => {
        is_asked = false;
        if (is_at_end && log.scrollTop >= place) log.scrollTop = log.scrollHeight;
      });
    };
  }

  // Streams the answer to the messages of `list` into `body`; `seen` fills meanwhile. Throws what client.stream throws.
  async function stream(list, body, seen, signal, overrides) {
    const before_more = follow(document.getElementById('log'));
    body.setAttribute('aria-busy', 'true');
    try {
      await client.stream({ ...settings.request(list), ...overrides }, signal, chunk => {
        if (chunk.usage) seen.usage = chunk.usage;
        before_more();
        const piece = add_chunk(chunk, body);
        if (!piece.text) return;
        seen.last_at = performance.now();
        if (!seen.text) [seen.first_at, seen.first_n] = [seen.last_at, piece.n];
        seen.text += piece.text;
        seen.n_tokens += piece.n;
      });
    } finally {
      body.removeAttribute('aria-busy');
    }
  }

  const n_tokens = seen => seen.usage ? seen.usage.completion_tokens : seen.n_tokens;

  // Tokens per second from the first piece to the last, so that reading the prompt does not count; where all came at
  // once, from the question on. 0 without tokens.
  function rate(seen) {
    const n = n_tokens(seen), writing = seen.last_at - seen.first_at;
    if (writing > 0 && n > seen.first_n) return 1000 * (n - seen.first_n) / writing;
    return seen.last_at > seen.began ? 1000 * n / (seen.last_at - seen.began) : 0;
  }
  const rate_text = seen => {
    const r = rate(seen);
    return `${r >= 10 ? r.toFixed(0) : r.toPrecision(2)} tokens/s`;
  };

  // The line below an answer. `how`: a word in front, such as "stopped".
  function line(seen, how) {
    const parts = how ? [how] : [];
    parts.push(`${n_tokens(seen)} tokens`);
    if (rate(seen) > 0) parts.push(rate_text(seen));
    const s = seen.usage && seen.usage.speculation;
    if (s && s.rounds > 0) {
      parts.push(`drafted ${s.drafted}`, `verified ${s.verified}`, `trimmed ${s.trimmed}`, `accepted ${s.accepted}`,
        `${((s.accepted + s.rounds) / s.rounds).toFixed(2)} tokens per round`);
    } else if (seen.usage) {
      parts.push('no drafts');
    }
    return parts.join(' · ');
  }
  return { begin, stream, follow, rate, rate_text, line };
})();
