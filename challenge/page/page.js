// The form of the page: reads the address, reserves, shows the outcome.
(function () {
  'use strict';

  const form = document.getElementById('reserve');
  const field = (name) => form.elements.namedItem(name);
  const outcome = document.getElementById('outcome');
  const progress = document.getElementById('progress');
  const status = document.getElementById('status');
  const button = document.getElementById('send');

  function randomID() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return 'web-' + Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  }

  function show(text, code) {
    outcome.textContent = text;
    outcome.dataset.status = code;
  }

  function onProgress(p) {
    progress.hidden = false;
    // The work has no fixed end: this part of it is found with that likelihood.
    progress.value = 1 - Math.exp(-p.hashes / p.expected);
    status.textContent = 'Checking that a person asks…';
  }

  function describe(response, body) {
    if (response.status === 201) return 'Reserved: ' + body.reservation_id + ', held until ' + body.expires_at;
    if (response.status === 202) return 'In line: ticket ' + body.ticket;
    return (body.title || 'Error ' + response.status) + (body.detail ? ': ' + body.detail : '');
  }

  async function reserve() {
    const response = await flashgateChallenge.fetch('/v1/reserve', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: 'Bearer ' + field('token').value },
      body: JSON.stringify({
        reservation_id: field('reservation_id').value,
        sale: field('sale').value,
        sku: field('sku').value,
        qty: Number(field('qty').value),
      }),
    }, onProgress);
    const body = await response.json().catch(() => ({}));
    show(describe(response, body), String(response.status));
    if (response.status === 201) field('reservation_id').value = randomID(); // the next one is another
  }

  async function submit(event) {
    if (event) event.preventDefault();
    button.disabled = true;
    show('', '');
    status.textContent = 'Asking…';
    try {
      await reserve();
    } catch (e) {
      show('Failed: ' + e.message, 'failed');
    }
    status.textContent = '';
    progress.hidden = true;
    button.disabled = false;
  }

  const given = new URLSearchParams(location.search);
  for (const name of ['sale', 'sku', 'qty', 'reservation_id']) {
    if (given.has(name)) field(name).value = given.get(name);
  }
  if (!field('reservation_id').value) field('reservation_id').value = randomID();
  // The token comes in the fragment, which no server sees, and does not stay in the address.
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token) {
    field('token').value = token;
    history.replaceState(null, '', location.pathname + location.search);
  }
  form.addEventListener('submit', submit);
  if (given.get('auto') === '1') submit(null);
})();
