'use strict';
// The look at server and model, and the banner: what keeps answers from coming, or from coming fast, must not go unseen.
const connection = (() => {
  const $ = id => document.getElementById(id);
  const problems = { server: '', key: '', model: '', drafter: '' };  // in the order in which they are shown
  let props = {};

  function tell(what, text) {
    if (problems[what] === text) return;  // an alert that is written anew is read aloud again
    problems[what] = text;
    const lines = Object.entries(problems).filter(entry => entry[1]).map(([name, words]) => {
      const line = document.createElement('p');
      line.dataset.problem = name;
      line.textContent = words;
      return line;
    });
    $('banner').replaceChildren(...lines);
    $('banner').hidden = !lines.length;
  }

  const say_state = text => { $('state').dataset.text = $('state').textContent = text; };

  function failed(error) {
    if (error.kind !== 'unreachable') tell('server', '');
    if (error.kind === 'unreachable') {
      tell('server', error.message + ' The page keeps trying.');
      $('state').textContent = 'not reachable';
    } else if (error.kind === 'key') {
      if (!problems.key) open_key();
      tell('key', error.message);
      $('state').textContent = 'API key missing or wrong';
    } else {
      tell('model', error.message);
    }
  }

  function open_key() {
    $('settings').hidden = false;
    $('toggle-settings').setAttribute('aria-expanded', 'true');
    $('api-key').focus();
  }

  // Something came from the server. After a time without, it may be another one: all is asked anew.
  function reached() {
    if (problems.server || problems.model) look();
    else if (!problems.key) $('state').textContent = $('state').dataset.text || 'ready';
  }

  async function look_at_model() {
    try {
      props = await client.getJson('props?model=' + encodeURIComponent($('model').value));
      say_state(props.drafter ? `${props.drafter.kind || 'drafter'}, ${props.policy || 'adaptive'}` : 'no drafter');
      tell('drafter', props.drafter ? '' : props.drafter_error
        ? `No drafter, answers come at plain speed: ${props.drafter_error}`
        : 'This server runs without a drafter: answers come at plain speed. Start it with -d DRAFTER.');
      for (const what of ['server', 'key', 'model']) tell(what, '');
      return true;
    } catch (error) {
      failed(error);
      return false;
    }
  }

  // Models into the list, keeping the choice, and the model's properties. returns: whether all of it came.
  async function look() {
    try {
      const list = await client.getJson('v1/models');
      const chosen = $('model').value;
      $('model').replaceChildren(...list.data.map(m => new Option(m.id, m.id, false, m.id === chosen)));
    } catch (error) {
      failed(error);
      return false;
    }
    return look_at_model();
  }

  $('model').addEventListener('change', look_at_model);
  $('api-key').addEventListener('change', look);
  return { look, failed, reached, props: () => props };
})();
