'use strict';
// Settings, kept in this browser only (the API key not even there), and what a request takes from them.
const settings = (() => {
  const $ = id => document.getElementById(id);
  const kept = ['temperature', 'seed', 'max-tokens', 'policy', 'system'];
  const store = {
    get(key) { try { return localStorage.getItem('dspark.' + key); } catch (_) { return null; } },
    set(key, value) { try { localStorage.setItem('dspark.' + key, value); } catch (_) { /* private window */ } },
  };
  for (const id of kept) {
    const value = store.get(id);
    if (value !== null) $(id).value = value;
    $(id).addEventListener('change', () => store.set(id, $(id).value));
  }

  const root = document.documentElement;
  root.dataset.theme = store.get('theme') || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  $('toggle-theme').addEventListener('click', () => {
    root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
    store.set('theme', root.dataset.theme);
  });

  for (const [button, panel] of [['toggle-settings', 'settings'], ['toggle-live', 'live']]) {
    $(button).addEventListener('click', () => {
      $(panel).hidden = !$(panel).hidden;
      $(button).setAttribute('aria-expanded', String(!$(panel).hidden));
    });
  }
  $('settings').addEventListener('submit', event => event.preventDefault());

  function request(list) {
    const system = $('system').value.trim();
    const body = {
      model: $('model').value, temperature: Number($('temperature').value), seed: Number($('seed').value),
      max_tokens: Number($('max-tokens').value),
      messages: system ? [{ role: 'system', content: system }, ...list] : list,
    };
    if ($('policy').value) body.speculation = { policy: $('policy').value };
    return body;
  }
  return { request };
})();
